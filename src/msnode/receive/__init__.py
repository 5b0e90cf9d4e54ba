"""The door: what comes in over the network is bounded, checked, made durable, then answered."""
