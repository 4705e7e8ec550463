"""Effects on a prediction: slopes, contrasts and adjusted predictions, averaged over rows."""
