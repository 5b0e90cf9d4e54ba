"""Numbers drawn from a lesion map."""
