"""The command line: ``python -m jaxmle fit data.csv "y ~ x" --model logistic``."""
