"""From what a user gives a batch to its members: stacked arrays, lists, one table; padding."""
