"""Policies as people write them, read into clauses."""
