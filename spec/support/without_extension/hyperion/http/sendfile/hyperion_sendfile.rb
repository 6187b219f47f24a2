# frozen_string_literal: true

# In front of the extension in the load path: as if it had not been built.

missing = LoadError.new("cannot load such file -- hyperion/http/sendfile/hyperion_sendfile")
missing.instance_variable_set(:@path, "hyperion/http/sendfile/hyperion_sendfile")
raise missing
