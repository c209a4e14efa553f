"""Weights & Biases: what runs tell it, sweeps, agents, reading back."""
