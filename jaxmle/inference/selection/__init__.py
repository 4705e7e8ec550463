"""Comparison of models and families, and divergences between distributions."""
