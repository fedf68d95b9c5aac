"""One party: its identity and policy, and its part in a session."""
