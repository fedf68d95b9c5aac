"""Secret sharing without I/O: Shamir, keyed randomness streams, pseudorandom sharing."""
