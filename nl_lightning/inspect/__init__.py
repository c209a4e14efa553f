"""Looking at networks: what a block attends to, what reaches an output, classes of a video."""
