"""What can be read off the program of a likelihood: rows kept apart, linear predictors."""
