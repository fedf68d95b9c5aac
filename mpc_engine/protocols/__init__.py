"""Protocols on shares: coroutines over whole vectors. Each declares its rounds and bytes."""
