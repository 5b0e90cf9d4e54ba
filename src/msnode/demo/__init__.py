"""The demo: a simulated patient, a PACS on loopback, and one full run of the node."""
