"""Every number of conf/ has bounds, and none may be NaN or infinite."""

import functools
import math
from dataclasses import dataclass, fields, is_dataclass
from typing import get_args, get_type_hints

import pytest
from hydra import compose, initialize_config_dir

from cai.composition import CONF, schema, typed
from cai.config.bounds import Bounds, bounds_of, check_bounds, count, number
from cai.errors import UserError


def parts(hint):
    """Yield a type and the types in it."""
    yield hint
    for inner in get_args(hint):
        yield from parts(inner)


def numbers(kind, prefix=""):
    """Yield the dotted name and the field of every key of a schema that is a number."""
    hints = get_type_hints(kind)
    for item in fields(kind):
        name, known = prefix + item.name, set(parts(hints[item.name]))
        if known & {int, float}:
            yield name, item
        for inner in known:
            if is_dataclass(inner):
                yield from numbers(inner, f"{name}.")


NUMBERS = dict(numbers(schema()))


def test_there_are_numbers_and_every_one_has_bounds():
    assert len(NUMBERS) > 150
    assert [name for name, item in NUMBERS.items() if bounds_of(item) is None] == []


@pytest.fixture(scope="module")
def composed():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return typed(compose("config"))


def refused(config, key, value):
    """Tell whether a config is refused, by name, when a key has a value."""
    *path, last = key.split(".")
    node = functools.reduce(getattr, path, config)
    before = getattr(node, last)
    setattr(node, last, [value, value] if isinstance(before, list) else value)
    try:
        check_bounds(config)
    except UserError as error:
        return str(error).startswith(f"{key}=")
    finally:
        setattr(node, last, before)
    return False


OF_OTHER_MODELS = ("feedback.labeller.", "pm.base.", "constitution.")


@pytest.mark.parametrize("key", [key for key in NUMBERS if not key.startswith(OF_OTHER_MODELS)])
def test_what_is_not_finite_or_beyond_the_ends_is_refused(composed, key):
    allowed = bounds_of(NUMBERS[key])
    assert refused(composed, key, math.nan)
    assert refused(composed, key, -math.inf)
    assert refused(composed, key, math.inf) != key.endswith("max_grad_norm")  # no clipping
    assert refused(composed, key, allowed.low - (0 if allowed.above else 1))
    if math.isfinite(allowed.high):
        assert refused(composed, key, allowed.high + (0 if allowed.below else 1))


def test_the_ends_themselves_hold():
    assert Bounds(0, 1).hold(0) and Bounds(0, 1).hold(1)
    assert not Bounds(0, 1, above=True).hold(0)
    assert not Bounds(0, 1, below=True).hold(1)
    assert not Bounds(-math.inf, math.inf).hold(math.nan)
    assert str(Bounds(0, 10**9, above=True)) == "(0, 1e9]"


@dataclass
class Inner:
    share: float = number(0, 1)
    anything: object = None


@dataclass
class Outer:
    n: int = count()
    rows: list = None


def test_numbers_in_lists_nodes_and_mappings_are_found():
    check_bounds(Outer(1, [Inner(1, {"a": {"b": [10**400, True, "nan"]}})]))
    check_bounds(Outer("???", [Inner()]))  # has no value yet
    for bad, key in [
        (Outer(0), "n=0"),
        (Outer(1, [Inner(2)]), "rows.0.share=2"),
        (Outer(1, [Inner(0, {"a": {"b": [math.nan]}})]), "rows.0.anything.a.b=nan"),
        (Outer(10**5000), "n=(more than 40 digits)"),
    ]:
        with pytest.raises(UserError) as caught:
            check_bounds(bad)
        assert str(caught.value).startswith(key)
