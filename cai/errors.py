"""Errors that a user can cause and mend."""


class UserError(Exception):
    """A mistake in a command, a config or a file, told in one sentence without a traceback."""


class SecretError(UserError):
    """A key or a password where it would be written to a file or a log; it is not repeated."""
