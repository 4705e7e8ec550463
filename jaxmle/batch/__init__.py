"""Many data sets at once: inputs, plan, compiled programs, scheduler."""
