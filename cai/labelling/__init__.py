"""Asking a model which of two replies follows a principle better, and judging its answers."""
