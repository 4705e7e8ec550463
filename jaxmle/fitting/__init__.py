"""From a log-likelihood, a start and data to a record with a verdict."""
