"""Inference from a fit: tests, intervals, resampling, diagnostics."""
