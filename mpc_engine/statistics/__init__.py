"""Presets: which cells a query lays out, and what a silo evaluates to fill them."""
