"""Estimators: rates, curves, tests and intervals from published numbers, in plain numpy.

They know nothing of queries, registries or releases. What carries noise is given together with the
variance of that noise; with a variance of zero every function is its textbook original.
"""
