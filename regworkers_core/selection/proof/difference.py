"""Where a published file first differs from the replayed one, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PIECE = 1 << 20
# Of a line that is shown: a damaged file may be one endless line.
_SHOWN = 160


def difference(published: Path, replayed: Path) -> str:
    """Empty when the bytes are equal, else what differs first. Reads both files in pieces."""
    if _equal(published, replayed):
        return ""
    if published.suffix == ".json":
        return _json_difference(published.read_bytes(), replayed.read_bytes())
    return _line_difference(published, replayed)


def equal_files(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes."""
    return _equal(one, other)


def _equal(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as left, other.open("rb") as right:
        while True:
            piece = left.read(_PIECE)
            if piece != right.read(_PIECE):
                return False
            if not piece:
                return True


def _line_difference(published: Path, replayed: Path) -> str:
    with published.open("rb") as left, replayed.open("rb") as right:
        number = 0
        while True:
            number += 1
            found, expected = left.readline(), right.readline()
            if found != expected:
                return f"line {number}: the replay gives {_shown(expected)}, found {_shown(found)}"


def _shown(line: bytes) -> str:
    if not line:
        return "no such line"
    return ascii(line[:_SHOWN].decode("latin-1"))


def _json_difference(published: bytes, replayed: bytes) -> str:
    try:
        found = json.loads(published)
        for path, got, wanted in _paths("", found, json.loads(replayed)):
            return (
                f"{ascii(path)[1:-1] or 'document'}: the replay gives {_value(wanted)}, found {_value(got)}"
            )
    except ValueError:
        return "not JSON"
    except RecursionError:
        return "nested too deep"
    return "not the canonical bytes"


_ABSENT = object()


def _paths(path: str, found: Any, expected: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys()):
            inner = f"{path}.{key}" if path else key
            yield from _paths(inner, found.get(key, _ABSENT), expected.get(key, _ABSENT))
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for index, (got, wanted) in enumerate(zip(found, expected, strict=True)):
            yield from _paths(f"{path}[{index}]", got, wanted)
    elif found is _ABSENT or expected is _ABSENT or found != expected or type(found) is not type(expected):
        yield path, found, expected


def _value(value: Any) -> str:
    return "nothing" if value is _ABSENT else json.dumps(value)[:_SHOWN]
