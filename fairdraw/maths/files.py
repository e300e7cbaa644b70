"""The artefacts of a phase: file names, hashes, errors, and JSON in canonical form (RFC 8785)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self

import rfc8785

from fairdraw.documents import MAX_DEPTH, as_document, camel, is_too_deep
from fairdraw.errors import DrawError
from fairdraw.terms import is_selection_id, seconds

LEAVES = "leaves.txt"
MANIFEST = "manifest.json"
STRIKES = "strikes.txt"
SEED = "seed.json"
RESULT = "result.txt"
CUTOFFS = "cutoffs.json"
SUMMARY = "summary.json"
# What a phase publishes, in the order of computation.
ARTEFACTS = (LEAVES, STRIKES, MANIFEST, SEED, RESULT, CUTOFFS, SUMMARY)
# The same rows as result.txt, for the pipeline.
OUTCOMES = "outcomes.parquet"

_HASH = re.compile(r"[0-9a-f]{64}")
HEX_DIGITS = "64 lower-case hex digits"
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z", re.ASCII)
_PIECE_BYTES = 1 << 20
# Longest excerpt of a rejected value in a message.
_SHOWN_CHARS = 160


def write_durably(path: Path, data: bytes) -> None:
    """Replace the file's bytes so that a crash leaves either the old ones or the new ones on the disk."""
    part = path.with_name(path.name + ".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def scratch_folder(scratch: Path) -> Iterator[Path]:
    """Yield a temporary folder under `scratch`, which is created when missing."""
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="draw-", dir=scratch) as folder:
        yield Path(folder)


def is_hash(text: object) -> bool:
    """Whether `text` is exactly 64 lower-case hex digits."""
    return isinstance(text, str) and _HASH.fullmatch(text) is not None


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file in hex, at constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def equal_files(one: Path, other: Path) -> bool:
    """Whether the bytes are the same, at constant memory."""
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as a, other.open("rb") as b:
        while piece := a.read(_PIECE_BYTES):
            if piece != b.read(_PIECE_BYTES):
                return False
    return True


def canonical_bytes(document: Any) -> bytes:
    """Serialise by RFC 8785, without a final line feed.

    Raises ValueError for a float, an integer beyond 2^53-1, or more than 64 levels of objects and lists.
    """
    if is_too_deep(document):
        raise ValueError(f"more than {MAX_DEPTH} levels of objects and lists")
    _refuse_floats(document)
    return rfc8785.dumps(document)


def parse_canonical(data: bytes, artefact: str) -> dict[str, Any]:
    """Parse a JSON object. Raises DrawError unless it is one, in canonical form."""
    document = _parsed(data, artefact)
    if not isinstance(document, dict):
        raise DrawError(artefact, f"a JSON object is needed, found {type(document).__name__}")
    return document


def parse_canonical_list(data: bytes, artefact: str) -> list[Any]:
    """Parse a JSON list. Raises DrawError unless it is one, in canonical form."""
    document = _parsed(data, artefact)
    if not isinstance(document, list):
        raise DrawError(artefact, f"a JSON list is needed, found {type(document).__name__}")
    return document


def _parsed(data: bytes, artefact: str) -> Any:
    try:
        document = json.loads(
            data.decode("utf-8"),
            parse_float=_no_float,
            parse_constant=_no_float,
            object_pairs_hook=_each_key_once,
        )
        canonical = canonical_bytes(document)
    except (ValueError, RecursionError):
        # Without the parser's words, which differ between versions: the page that checks a receipt says the same.
        raise DrawError(artefact, "not canonical JSON (RFC 8785) with integers only") from None
    if canonical != data:
        pairs = enumerate(zip(canonical, data, strict=False))
        at = next((i for i, (ours, theirs) in pairs if ours != theirs), min(len(canonical), len(data)))
        raise DrawError(artefact, f"not the canonical form (RFC 8785): differs from it at byte {at}")
    return document


def parse_any_layout(data: bytes) -> Any:
    """Parse JSON that people may have laid out. Raises ValueError for what has no canonical form: numbers that are not
    exact everywhere, more than 64 levels, halves of characters, a key twice in one object.
    """
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_each_key_once)
        canonical_bytes(document)
    except RecursionError:
        raise ValueError("too many levels of objects and lists") from None
    return document


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. Programs differ in which value of a key they take that is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _refuse_floats(value: Any) -> None:
    if isinstance(value, float):
        _no_float(repr(value))
    elif isinstance(value, (Mapping, list, tuple)):
        for each in value.values() if isinstance(value, Mapping) else value:
            _refuse_floats(each)


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"a number that is no integer: {text}")


def short(value: object) -> str:
    """Return an excerpt of an untrusted value for a message, in ASCII."""
    text = ascii(value) if not isinstance(value, str) else ascii(value[:_SHOWN_CHARS])
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."


def json_keys(kind: type, *more: str) -> tuple[str, ...]:
    """Return the JSON keys of a dataclass: its fields in camelCase, and `more`."""
    return (*(camel(each.name) for each in fields(kind)), *more)


class Fields:
    """A strict reader of one JSON object: exactly the given keys (None: any), each of its type.

    Every method raises DrawError for another value; its message starts with the path of the key.
    """

    def __init__(self, artefact: str, path: str, document: object, keys: Collection[str] | None) -> None:
        self._artefact, self._path = artefact, path
        if not isinstance(document, Mapping):
            self.refuse("", f"a JSON object is needed, found {short(document)}")
        known = set(document if keys is None else keys)
        if missing := sorted(known - set(document)):
            self.refuse("", f"missing {', '.join(missing)}")
        if extra := sorted(set(document) - known):
            self.refuse(
                "", f"unknown {short(', '.join(extra))[1:-1]}: exactly {', '.join(sorted(known))} are allowed"
            )
        self._document: Mapping[str, Any] = document

    @property
    def names(self) -> list[str]:
        return list(self._document)

    def refuse(self, key: str, what: str) -> NoReturn:
        # A key may be untrusted text, too.
        where = short(self._joined(key) if key else self._path)[1:-1]
        raise DrawError(self._artefact, f"{where}: {what}" if where else what)

    def raw(self, key: str) -> Any:
        return self._document[key]

    def integer(self, key: str, least: int = 0) -> int:
        value = self._document[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            self.refuse(key, f"an integer of at least {least} is needed, found {short(value)}")
        return value

    def flag(self, key: str) -> bool:
        value = self._document[key]
        if not isinstance(value, bool):
            self.refuse(key, f"true or false is needed, found {short(value)}")
        return value

    def object(self, key: str) -> dict[str, Any]:
        """Return the object under `key` as it is."""
        self.nested(key)
        return dict(self._document[key])

    def text(self, key: str, accept: Any, what: str) -> str:
        """Return the string under `key` if `accept(value)` holds; `what` describes it in the error."""
        value = self._document[key]
        if not isinstance(value, str) or not accept(value):
            self.refuse(key, f"{what} is needed, found {short(value)}")
        return value

    def hash(self, key: str) -> str:
        return self.text(key, is_hash, HEX_DIGITS)

    def id(self, key: str) -> str:
        return self.text(key, is_selection_id, "an id")

    def time(self, key: str) -> str:
        """Return a valid time in the form `2026-11-25T08:15:00.123Z`."""
        return self.text(key, _is_time, "a time like 2026-11-25T08:15:00.123Z")

    def list(self, key: str) -> list[Any]:
        value = self._document[key]
        if not isinstance(value, list):
            self.refuse(key, f"a list is needed, found {short(value)}")
        return value

    def nested(self, key: str, keys: Collection[str] | None = None) -> Fields:
        """Return a reader of the object under `key`."""
        return Fields(self._artefact, self._joined(key), self._document[key], keys)

    def objects(self, key: str, keys: Collection[str]) -> Iterator[Fields]:
        """Yield a reader of each object in the list under `key`."""
        for number, each in enumerate(self.list(key)):
            yield Fields(self._artefact, self._joined(f"{key}[{number}]"), each, keys)

    def _joined(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key


def _is_time(text: str) -> bool:
    return _TIME.fullmatch(text) is not None and seconds(text) is not None


class JsonFile:
    """A dataclass that is one JSON artefact, `FILE`, with its fields as the keys."""

    __slots__ = ()
    FILE: ClassVar[str]

    def as_document(self) -> dict[str, Any]:
        return as_document(self)

    def to_bytes(self) -> bytes:
        """Return the bytes of the file. Raises DrawError when `parse` would reject them."""
        data = canonical_bytes(self.as_document())
        self.parse(data)
        return data

    @classmethod
    def parse(cls, data: bytes, artefact: str = "") -> Self:
        """Read exactly these bytes; errors name `artefact` (default: FILE). Raises DrawError with the key and what was
        found.
        """
        name = artefact or cls.FILE
        return cls.read(Fields(name, "", parse_canonical(data, name), cls.keys()))

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        return json_keys(cls)

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the values of the keys. Raises DrawError."""
        raise NotImplementedError
