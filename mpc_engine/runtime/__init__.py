"""Running protocols: the port to other parties, its in-memory adapter, rounds, steps and costs."""
