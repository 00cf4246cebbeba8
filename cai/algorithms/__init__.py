"""What the papers say, as pure functions on tensors, floats and strings."""
