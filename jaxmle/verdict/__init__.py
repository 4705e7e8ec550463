"""What the end of an ascent is: its shape, its limit, its status, and the cone of a recession."""
