#error "there is no such header on this system"
