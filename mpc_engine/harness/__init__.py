"""The scenario harness: plays studies with faults and networks, and measures how useful, private, robust and
fast the engine is."""
