"""A release: the public plan, its execution on shares, and the published table."""
