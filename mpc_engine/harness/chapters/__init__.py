"""The chapters of a report on one scenario, each a function from its run to blocks."""
