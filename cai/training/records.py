"""Who takes the numbers of a training."""

from collections.abc import Callable, Mapping

Record = Callable[[Mapping[str, float], int], None]
"""Takes the numbers of one step, live; the module keeps them in ``history`` as well."""
