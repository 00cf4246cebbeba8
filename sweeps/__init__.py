"""Configs, so that Hydra finds them as pkg://cai.sweeps once they are installed."""
