"""What the built-in models share: start values, codings, distributions of responses, options."""
