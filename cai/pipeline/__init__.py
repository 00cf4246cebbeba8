"""Stages as contracts, and the engine that brings one up to date: it knows no stage by name."""
