"""What the built-in models share: start values, codings, laws of responses, options."""
