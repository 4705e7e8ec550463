"""Questions asked of a fit."""
