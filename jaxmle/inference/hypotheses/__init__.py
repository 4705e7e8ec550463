"""Tests: Wald, likelihood ratio, score, Vuong, information matrix, and corrections for several."""
