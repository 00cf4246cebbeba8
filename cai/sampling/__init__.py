"""Replies of a model, made in shards that resume."""
