"""Constitutional AI (Bai et al. 2022) as a Hydra-configured experiment suite."""
