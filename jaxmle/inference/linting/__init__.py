"""``lint``: whether a log-likelihood is what it seems, before it is fitted."""
