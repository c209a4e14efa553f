"""Training and testing one network."""
