"""Some members of a batch on the device: their data, and the passes over them."""
