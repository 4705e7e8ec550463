"""Profile likelihoods: intervals, regions, simultaneous intervals and their gradients."""
