"""Many data sets at once: ``fit_batch``, its rounds, its checkpoint."""
