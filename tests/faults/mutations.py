"""Ways in which rows and files from outside are not as they should be, drawn at random."""

import copy
import gzip
import json
import os

ODD = [
    None, True, 0, -1, 3.5, 1e308, float("inf"), float("nan"), 10**4000, "", " ", "\x00", "\ud800",
    "a\r\nb", "\u202e\x1b[31m", "x" * 5_000_000, "Human:", "\n\nHuman: a\n\nHuman: b",
    "\n\nAssistant: a", "{first} {0} {", "(A)", [], [[]], {}, {"a": 1}, ["x"], [None], [3], [{}],
    [{"role": []}], [{"role": "user"}], [{"role": "user", "content": None}],
    [{"role": "system", "content": "a"}], [{"role": "assistant", "content": "a"}],
    [{"role": "user", "content": ["a"]}], [{"role": "user", "content": "\ud800"}],
    [{"role": "user", "content": "a"}] * 3,
]  # fmt: skip
RAW = [
    b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5000, b"-" + b"9" * 5000, b"1e999999", b'"\\ud83d"',
    b'"\\uZZZZ"', b"NaN", b"'a'", b'"\xff\xfe"', b'"\xed\xa0\x80"', b"[" * 40 + b"]" * 40, b"",
    b'"' + b"y" * 5_000_000 + b'"', b"\x00", b"tru", b'"a" "b"',
]  # fmt: skip


def places_in(value, path=()):
    """List the paths to all values in a row, its own left out."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in inner:
        found.append((*path, key))
        if isinstance(item, dict | list):
            found += places_in(item, (*path, key))
    return found


def at(row, path):
    for key in path:
        row = row[key]
    return row


def changed(chance, rows, change):
    """Change one value of one row, by its container and key."""
    rows = copy.deepcopy(rows)
    row = chance.choice(rows)
    if found := places_in(row):
        path = chance.choice(found)
        change(at(row, path[:-1]), path[-1])
    return rows


def odd_value(chance, rows):
    return changed(chance, rows, lambda box, key: box.__setitem__(key, chance.choice(ODD)))


def missing(chance, rows):
    return changed(chance, rows, lambda box, key: box.pop(key))


def wrapped(chance, rows):
    wrap = chance.choice([lambda v: [v], lambda v: {"text": v}, lambda v: [v, v], str])
    return changed(chance, rows, lambda box, key: box.__setitem__(key, wrap(box[key])))


def renamed(chance, rows):
    rows = copy.deepcopy(rows)
    row = chance.choice(rows)
    names = ["", "x" * 10**6, "prompt", "id", "\ud800"]
    row[chance.choice(names)] = row.pop(chance.choice([*row])) if row else "new"
    return rows


def no_object(chance, rows):
    rows = list(rows)
    rows[chance.randrange(len(rows))] = chance.choice(ODD)
    return rows


def repeated(chance, rows):
    """Give a row the id of another, and sometimes all else as well."""
    rows = copy.deepcopy(rows)
    one, other = chance.choices(range(len(rows)), k=2)
    rows[one] = copy.deepcopy(rows[other]) if chance.random() < 0.3 else {**rows[one], "id": "same"}
    rows[other] = {**rows[other], "id": "same"}
    return rows


def raw_value(chance, data):
    """Put something that json.dumps would not write in the place of a value."""
    lines = data.split(b"\n")
    number = chance.randrange(len(lines))
    cuts = [i for i, byte in enumerate(lines[number]) if byte in b":,"]
    if cuts:
        cut = chance.choice(cuts) + 1
        lines[number] = lines[number][:cut] + chance.choice(RAW) + chance.choice([b"", b"}"])
    return b"\n".join(lines)


def text(chance, data):
    """Change lines as editors and pipes do."""
    lines = data.split(b"\n")
    number = chance.randrange(len(lines))
    return chance.choice([
        lambda: b"\n".join([*lines[:number], b"", b"  ", *lines[number:]]),
        lambda: data.replace(b"\n", b"\r\n"),
        lambda: data.replace(b"\n", b"\r"),
        lambda: data.replace(b"\n", b""),
        lambda: data.rstrip(b"\n") + b",",
        lambda: b"\xef\xbb\xbf" + data,
        lambda: data.replace(lines[number], b"\xef\xbb\xbf" + lines[number]),
        lambda: data.replace(b'"', b"'"),
        lambda: data.decode(errors="replace").encode("utf-16"),
        lambda: data.decode(errors="replace").encode("latin-1", "replace"),
        lambda: b"[" + data,
        lambda: data + data,
        lambda: b" " * 200 + data,
    ])()  # fmt: skip


def bytes_of(chance, data):
    """Flip, cut, insert and blank bytes."""
    at_, length = chance.randrange(len(data) + 1), chance.choice([1, 1, 4, 64, 5000])
    noise = chance.randbytes(length)
    return chance.choice([
        lambda: data[:at_] + noise + data[at_ + length :],
        lambda: data[:at_] + noise + data[at_:],
        lambda: data[:at_],
        lambda: data[at_:],
        lambda: data[:at_] + bytes(length) + data[at_ + length :],
        lambda: b"",
        lambda: bytes([*data[:at_], data[at_] ^ 1 << chance.randrange(8), *data[at_ + 1 :]])
        if at_ < len(data) else data,
    ])()  # fmt: skip


def packed(chance, data):
    """Damage a file that is compressed."""
    return bytes_of(chance, gzip.compress(data))


def place(chance, path):
    """Put something else where the file should be."""
    path.unlink()
    chance.choice([
        lambda: os.mkfifo(path),
        lambda: path.mkdir(),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to("/dev/stdin"),
        lambda: path.symlink_to("nowhere"),
        lambda: path.symlink_to(path.name),
        lambda: path.write_bytes(json.dumps([[]] * 5).encode()),
    ])()  # fmt: skip


ROWS = [odd_value, odd_value, odd_value, missing, wrapped, renamed, no_object, repeated]
DATA = [raw_value, raw_value, text, bytes_of, packed]
