"""A party's ledger: what was asked, what it cost, how far it has come, and a chain that proves it."""
