"""Model bundles and what they say about a prepared volume."""
