"""Scores, Hessians, information and covariances of a likelihood at given parameters."""
