"""The one place where errors become sentences: of the command line, of memory, of the disk."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from cai.composition import CONF, fault_of_constitution, keys, schema, unknown_key
from cai.errors import UserError, is_out_of_memory
from cai.terminal import one_line

LONGEST = 120
"""Signs of the command line that are repeated in an error."""
GOES_ON = "the same command goes on where this one stopped"
_PLACES = (
    ("/cai/lm/generate", "/cai/lm/cache", "/cai/sampling/", "lower hardware.sample_rows"),
    ("/cai/lm/load", "/cai/lm/pretrained", "/cai/lm/embedded", "/cai/lm/language_model",
     "use a smaller model, or model.dtype=bf16"),
    ("/cai/training/", "/cai/lm/", "lower hardware.micro_tokens"),
)  # fmt: skip
"""What was done when memory ran out, the narrowest first, and what to do about it."""
_FULL = {errno.ENOSPC, errno.EDQUOT}


def sentence_of(error: BaseException) -> str | None:
    """Put what a user can mend in one sentence; None for a fault of the program."""
    if isinstance(error, UserError):
        return str(error)
    for rule in (_out_of_memory, _of_disk, _of_compiler):
        for cause in _causes(error):
            if said := rule(cause):
                return said
    if isinstance(error, HydraException | OmegaConfBaseException):
        return explain(error)
    return None


def _out_of_memory(error: BaseException) -> str | None:
    if not is_out_of_memory(error):
        return None
    # Without the lines of source that a summary reads: there is little memory for that.
    walked = traceback.walk_tb(error.__traceback__)
    frames = [frame.f_code.co_filename.replace("\\", "/") for frame, _ in walked]
    for *places, advice in _PLACES:
        if any(place in file for file in frames for place in places):
            return f"there is not enough memory: {advice}, and {GOES_ON}"
    return f"there is not enough memory: give this process more, or use a smaller model; {GOES_ON}"


def _of_disk(error: BaseException) -> str | None:
    number = getattr(error, "errno", None)
    if type(error).__name__ == "SafetensorError":  # its own class, with the number in its words
        said = re.search(r"os error (\d+)", str(error))
        number = int(said.group(1)) if said else None
    elif not isinstance(error, OSError):
        return None
    where = one_line(str(getattr(error, "filename", None) or "outputs"), LONGEST)
    if number in _FULL:
        return (
            f"the disk is full ({where}): free some space and run the same command, which goes on "
            "where this one stopped"
        )
    if number == errno.EFBIG:
        return f"{where} grew beyond the largest file that is allowed: raise ulimit -f; {GOES_ON}"
    if number in {errno.EACCES, errno.EPERM, errno.EROFS} and getattr(error, "filename", None):
        return (
            f"{where} can't be read or written ({os.strerror(number)}): change its permissions, or "
            "set outputs= and the environment variable CAI_CACHE to folders that you may write"
        )
    return None


def _of_compiler(error: BaseException) -> str | None:
    """Explain what ``hardware.compile`` may meet: no compiler, or a layer that it fails on."""
    if "TorchDynamoException" not in {kind.__name__ for kind in type(error).__mro__}:
        return None
    said = one_line(str(error).strip(), LONGEST)
    return f"the layers can't be compiled here ({said}): set hardware.compile=false; {GOES_ON}"


def explain(error: BaseException) -> str:
    """Put an error of the config in one sentence: the key, the value and what is allowed.

    What an address may hold of a name, a key or a query is not repeated.
    """
    return re.sub(r"(\w+://)[^\s/'\"]*@|(://[^\s?#'\"]*)[?#][^\s'\"]*", r"\1\2...", _explain(error))


def _explain(error: BaseException) -> str:
    causes = list(_causes(error))
    if fault := fault_of_constitution(str(causes[0])):
        return fault
    for cause in causes:
        if isinstance(cause, UserError):
            return str(cause)
    if isinstance(causes[0], OverrideParseException):
        return _unreadable(causes[0].override)
    if not isinstance(causes[0], HydraException | OmegaConfBaseException):
        return _not_of_hydra(causes[0], sys.argv[1:])
    text = _one_line(str(causes[0]))
    for pattern, say in RULES:
        if found := re.search(pattern, text):
            return say(found, causes)
    key, reason = str(getattr(causes[0], "full_key", None) or ""), _reason(causes)
    told = text if key in text else f"{key}: {text}"
    return told if reason in told else f"{told} ({reason})"


def _refused_value(found: re.Match[str], causes: list[BaseException]) -> str:
    key, value = found.groups()
    inner = [name for name in keys(schema()) if name.rpartition(".")[0] == key]
    reason = f"set one of {', '.join(inner)}" if inner else _reason(causes)
    return f"{key}={value} is not allowed: {reason}"


def _unknown(found: re.Match[str], causes: list[BaseException]) -> str:
    """Tell a key that is not there from one whose value has such a key in it."""
    key = found.group(1)
    known = key in keys(schema())
    return f"{key} has no such key: {_reason(causes)}" if known else unknown_key(key)


RULES: tuple[tuple[str, Callable[[re.Match[str], list[BaseException]], str]], ...] = (
    (r"Could not override '([^']+)'", _unknown),
    (r"Could not find '([^']+)/([^/']*)'", lambda found, _: _not_there(*found.groups())),
    (
        r"Error merging override (~\S+)",
        lambda found, _: f"{found.group(1)} takes out what a run needs: leave it out",
    ),
    (r"Error merging override (\S+?)=(.*?)(?: |$)", _refused_value),
    (
        r"Missing mandatory value: (\S+)",
        lambda found, _: f"{found.group(1)} has no value: give one on the command line or in conf/",
    ),
)
"""What Hydra says, and what is said instead."""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _one_line(text: str) -> str:
    kept = [
        line.strip()
        for line in text.splitlines()
        if not re.match(r"\s*(full_key|object_type|reference_type|Config search path)\b", line)
        and "provider=" not in line
    ]
    return " ".join(line for line in kept if line)


def _reason(causes: list[BaseException]) -> str:
    """Return what OmegaConf says about a value: of what type or which options it should be."""
    for cause in causes[1:]:
        if isinstance(cause, OmegaConfBaseException):
            return _one_line(str(cause))
    return _one_line(str(causes[-1]))


def _unreadable(override: str) -> str:
    """Say how an override should be written that Hydra can't read; an address is not repeated."""
    key, _, value = override.partition("=")
    shown = one_line(f"{key}=..." if "://" in value else override, LONGEST)
    if re.fullmatch(r"[+~]*[\w./@-]+", key) and value:
        return (
            f"{shown!r} can't be read: put a value with signs like = [ {{ ( or blanks in quotes of "
            f"its own, as '{one_line(key, LONGEST)}=\"...\"'"
        )
    return f"{shown!r} is not an override: write it as key=value"


CHOSEN = {
    "data.files": "data=files",
    "feedback.labeller": "model@feedback.labeller=",
    "pm.base": "model@pm.base=",
}
"""Nodes that are null until a file of a group is chosen, and how that begins."""


def _not_of_hydra(error: BaseException, words: list[str]) -> str:
    """Find the override that Python itself stumbles over while Hydra reads it."""
    chosen = "Config group override" in str(error)  # a number or null instead of a file's name
    given = [word.lstrip("+/") for word in words]
    null = [node for node, choice in CHOSEN.items() if not any(w.startswith(choice) for w in given)]
    for word in words:
        group, _, option = word.lstrip("+").partition("=")
        node = next((node for node in null if f"{group}.".startswith(f"{node}.")), None)
        if node and re.search("Unexpected type|NoneType", str(error)):
            choice = CHOSEN[node] + ("NAME" if CHOSEN[node].endswith("=") else "")
            return f"{group} is only read by {choice}: add that"
        group = group.partition("@")[0].lstrip("/")
        folder = CONF / group
        if chosen and folder.is_dir() and not (folder / f"{option}.yaml").is_file():
            return _not_there(group, one_line(option, LONGEST))
        try:
            OverridesParser.create().parse_override(word)
        except (HydraException, ValueError, RecursionError):
            return _unreadable(word)
    reason = one_line(str(error), LONGEST) or type(error).__name__
    longest = one_line(max(words, key=len, default=""), 40)
    return f"the overrides can't be applied ({reason}): correct them, the longest ({longest}) first"


def _not_there(group: str, option: str) -> str:
    if group.startswith("hydra/"):  # Hydra's own groups grow with its plugins
        extra = option.partition("_")[0]
        return f"{group}={option} is not installed: pip install 'constitutional-ai[{extra}]'"
    options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    return f"{group}={option} is not there: use one of {', '.join(options)}"
