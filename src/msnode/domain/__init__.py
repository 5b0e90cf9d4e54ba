"""Frozen types that flow between stages; units and axes are stated per field."""
