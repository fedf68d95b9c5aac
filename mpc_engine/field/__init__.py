"""Finite-field arithmetic on numpy vectors, and the scalar algebra behind it."""
