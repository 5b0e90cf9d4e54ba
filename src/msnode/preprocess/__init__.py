"""Volume → what a network sees, and back to the source grid."""
