"""Errors that a user can cause and mend."""


class UserError(Exception):
    """A mistake in a command, a config or a file, told in one sentence without a traceback."""
