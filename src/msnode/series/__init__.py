"""From received instances to the volume to read: assemble, select, check, decode."""
