"""Training: data set, nnU-Net training, and promotion of a checkpoint to a bundle."""
