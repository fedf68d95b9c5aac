"""Frames between parties over gRPC with mutual TLS: the port's adapter for real networks."""

import os

# The C library writes its own lines to standard error, addresses and all. What a person needs to
# know is in the errors raised here; set the variable to see the library's view as well.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
