"""From received instances to the one volume to read: assemble, select, check, decode."""
