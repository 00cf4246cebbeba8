"""Principles, how they are drawn, and the texts that put them to a model."""
