"""What compares systems: preference models of our own, somebody's reward model, or a server."""
