"""What a run does, top to bottom: one module per stage, each with ``run(config, inputs, ...)``."""
