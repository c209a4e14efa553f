"""The paper's block and networks, and faster forms of them. Torch only."""
