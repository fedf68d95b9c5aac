"""The silo side: the only code that sees records. They are mapped, registered, then counted."""
