"""Weight files: our own, and those of the released code and its ports."""
