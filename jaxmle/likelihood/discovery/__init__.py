"""What can be read from the program of a likelihood: independent rows, linear predictors."""
