"""msnode."""
