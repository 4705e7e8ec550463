"""What the end of a climb is: its shape, its limit, its status, and the cone of a recession."""
