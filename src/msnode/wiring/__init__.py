"""The only place where settings choose the real objects and join them."""
