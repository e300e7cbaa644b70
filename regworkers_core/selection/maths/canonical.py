"""JSON as the artefacts have it: RFC 8785 bytes, integers only, no final line feed."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

import rfc8785

from regworkers_core.domain.timestamps import seconds
from regworkers_core.selection.maths.errors import DrawError

TIME = "a time like 2026-11-25T08:15:00.123Z"
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z", re.ASCII)
# Of what was found instead.
_SHOWN = 160


def canonical_bytes(document: Any) -> bytes:
    """RFC 8785 bytes of `document`. ValueError for a float or an integer beyond 2^53-1."""
    _refuse_floats(document)
    return rfc8785.dumps(document)


def parse_canonical(data: bytes, artefact: str) -> dict[str, Any]:
    """The object in `data`. DrawError when it is not JSON, no object, or not written canonically."""
    document = _parsed(data, artefact)
    if not isinstance(document, dict):
        raise DrawError(artefact, f"a JSON object is needed, found {type(document).__name__}")
    return document


def parse_canonical_list(data: bytes, artefact: str) -> list[Any]:
    """The list in `data`. DrawError as `parse_canonical`."""
    document = _parsed(data, artefact)
    if not isinstance(document, list):
        raise DrawError(artefact, f"a JSON list is needed, found {type(document).__name__}")
    return document


def is_time(text: str) -> bool:
    """Whether this is a moment that exists, written as `2026-11-25T08:15:00.123Z`."""
    return _TIME.fullmatch(text) is not None and seconds(text) is not None


def _parsed(data: bytes, artefact: str) -> Any:
    try:
        document = json.loads(data.decode("utf-8"), parse_float=_no_float, parse_constant=_no_float)
        canonical = canonical_bytes(document)
    except (ValueError, RecursionError) as error:
        raise DrawError(artefact, f"not canonical JSON with integers only: {error}") from None
    if canonical != data:
        at = next(
            (i for i, pair in enumerate(zip(canonical, data, strict=False)) if pair[0] != pair[1]), None
        )
        where = min(len(canonical), len(data)) if at is None else at
        raise DrawError(artefact, f"not the canonical form (RFC 8785): differs from it at byte {where}")
    return document


def short(value: object) -> str:
    """A value from a stranger's file, as much of it as a message needs."""
    text = repr(value) if not isinstance(value, str) else repr(value[:_SHOWN])
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


class Fields:
    """Strict reading of one JSON object: exactly the keys named, each of its type. `path` leads in messages."""

    def __init__(self, artefact: str, path: str, document: object, keys: Collection[str]) -> None:
        self._artefact, self._path = artefact, path
        if not isinstance(document, Mapping):
            self.refuse("", f"a JSON object is needed, found {short(document)}")
        missing, extra = sorted(set(keys) - set(document)), sorted(set(document) - set(keys))
        if missing:
            self.refuse("", f"missing {', '.join(missing)}")
        if extra:
            self.refuse(
                "", f"unknown {short(', '.join(extra))[1:-1]}: exactly {', '.join(sorted(keys))} are allowed"
            )
        self._document: Mapping[str, Any] = document

    def refuse(self, key: str, what: str) -> NoReturn:
        # A key may be a stranger's text, too.
        where = short(".".join(part for part in (self._path, key) if part))[1:-1]
        raise DrawError(self._artefact, f"{where}: {what}" if where else what)

    def raw(self, key: str) -> Any:
        return self._document[key]

    def integer(self, key: str, least: int = 0) -> int:
        value = self._document[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            self.refuse(key, f"an integer of at least {least} is needed, found {short(value)}")
        return value

    def text(self, key: str, accept: Any, what: str) -> str:
        """The string under `key` if `accept(value)` holds; `what` says in the message what it should be."""
        value = self._document[key]
        if not isinstance(value, str) or not accept(value):
            self.refuse(key, f"{what} is needed, found {short(value)}")
        return value

    def list(self, key: str) -> list[Any]:
        value = self._document[key]
        if not isinstance(value, list):
            self.refuse(key, f"a list is needed, found {short(value)}")
        return value


def _refuse_floats(value: Any) -> None:
    if isinstance(value, float):
        raise ValueError(f"a number that is no integer: {value!r}")
    if isinstance(value, Mapping):
        for each in value.values():
            _refuse_floats(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            _refuse_floats(each)


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"a number that is no integer: {text}")
