"""Influence, residuals, disagreement of covariances, bias reduction."""
