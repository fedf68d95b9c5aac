"""Scenarios: whole studies on one machine, each party a process of its own."""
