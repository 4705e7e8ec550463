"""Many starts: their spread, their maxima, and symmetric copies of one maximum."""
