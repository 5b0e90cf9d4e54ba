"""A made-up patient, a PACS on loopback, and one full run of the node between them."""
