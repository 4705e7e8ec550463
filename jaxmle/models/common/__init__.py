"""What the ready models share: start values, codings, laws of responses, options."""
