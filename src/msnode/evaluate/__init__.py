"""How well a model does against an expert's mask."""
