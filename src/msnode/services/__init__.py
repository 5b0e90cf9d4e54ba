"""The long-running duties of a node's processes."""
