"""One study becomes one result set."""
