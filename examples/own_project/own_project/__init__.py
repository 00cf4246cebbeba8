"""A public library's help desk: what it adds to the suite, and nothing else."""
