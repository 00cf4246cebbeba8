"""Errors that a user can cause and mend."""

import re

_NO_MEMORY = re.compile(
    r"DefaultCPUAllocator|(?:can't|cannot|could not) allocate memory|out of memory|bad_alloc"
    r"|can't start new thread|failed to map segment|killed by signal: Killed|alloc_cpu"
    r"|Unable to allocate|CUBLAS_STATUS_ALLOC_FAILED|unable to mmap",
    re.IGNORECASE,
)
"""What libraries say when there is no memory left; torch has no class of its own for it on CPUs."""


class UserError(Exception):
    """A mistake in a command, a config or a file, told in one sentence without a traceback."""


class SecretError(UserError):
    """A key or a password where it would be written to a file or a log; it is not repeated."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that there is no memory left, in whatever class and words."""
    names = {kind.__name__ for kind in type(error).__mro__}
    told = isinstance(error, RuntimeError | ImportError | OSError | ValueError)
    spoken = told and _NO_MEMORY.search(str(error))
    return bool(spoken or names & {"MemoryError", "OutOfMemoryError"})


def has_panicked(error: BaseException) -> bool:
    """Tell whether a library compiled from Rust gave up, which is no Exception of Python's."""
    return type(error).__name__ == "PanicException"
