"""Mixtures and EM."""
