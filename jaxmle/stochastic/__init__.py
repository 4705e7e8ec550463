"""Fits over mini-batches."""
