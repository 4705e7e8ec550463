"""``lint``: checks of a log-likelihood before it is fitted."""
