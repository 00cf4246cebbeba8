"""Configs, so that Hydra finds them as pkg://cai.conf once they are installed."""
