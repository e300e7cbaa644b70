"""What a restored store cannot forget: an object for each erasure, by a keyed hash of the entry and the time.

The key is in the secret store, so that the objects do not tell who was erased. After a restore the entries of the
backup are hashed, and those are found again (`again.replay`).
"""

from __future__ import annotations

import hmac
import re
import secrets as randomness
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import orjson

from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso

PREFIX = "erasures/"
SECRET = "erasure-ledger"  # noqa: S105 - its name
_SECRET_BYTES = 32
_HEX = re.compile(r"[0-9a-f]{64}")
_DESCRIPTION = "Key of the hashes of erased entries: without it no erasure can be repeated after a restore."
# Of a key: only characters that are safe in one.
_STAMP = "%Y%m%dT%H%M%S%fZ"
_LINE, _DONE = ".jsonl", ".done"


class Objects(Protocol):
    def put_once(self, key: str, data: bytes) -> bytes: ...
    def list(self, prefix: str) -> list[str]: ...


class Secrets(Protocol):
    def get(self, name: str) -> str | None: ...
    def create(self, name: str, value: str, *, description: str) -> str: ...


class Recorded(NamedTuple):
    """The last erasure of an entry; `at` is an ISO time, empty where there was none."""

    at: str = ""
    done: bool = False


class Ledger:
    """Every method raises TransientFailure when S3 or the secret store cannot answer, UsageError for a secret of
    another kind.
    """

    def __init__(
        self,
        objects: Objects,
        secrets: Secrets,
        *,
        entropy: Callable[[int], bytes] = randomness.token_bytes,
    ) -> None:
        self._objects, self._secrets, self._entropy = objects, secrets, entropy
        self._key: bytes | None = None

    def of_entry(self, key: EntryKey) -> Recorded:
        """When the entry was last erased, and whether that erasure came to its end."""
        if self._known_key() is None:
            return Recorded()
        names = self._objects.list(f"{PREFIX}{self.mark(key)}/")
        last = max(map(_time_of, names), default="")
        return Recorded(last, bool(last) and self._name(key, last, _DONE) in names)

    def write(self, key: EntryKey, at: str) -> None:
        """Durable when it returns; a repeat changes nothing. `at` is an ISO time. Raises UsageError when the key is
        lost: under a new one, no erasure before would ever be found again.
        """
        if self._known_key() is None:
            if before := self._objects.list(PREFIX):
                raise _lost(len({_mark_of(name) for name in before}))
            made = self._entropy(_SECRET_BYTES).hex()
            self._key = _checked(self._secrets.create(SECRET, made, description=_DESCRIPTION))
        line = orjson.dumps({"entry": self.mark(key), "erasedAt": at}) + b"\n"
        self._objects.put_once(self._name(key, at, _LINE), line)

    def close(self, key: EntryKey, at: str) -> None:
        """The erasure that began at `at` came to its end: what stands from now on is another registration."""
        self._objects.put_once(self._name(key, at, _DONE), b"")

    def all(self) -> dict[str, str]:
        """The last time by the mark of each entry that was ever erased. Raises UsageError when the key is lost."""
        found: dict[str, str] = {}
        for name in self._objects.list(PREFIX):
            mark = _mark_of(name)
            found[mark] = max(found.get(mark, ""), _time_of(name))
        if found and self._known_key() is None:
            raise _lost(len(found))
        return found

    def mark(self, key: EntryKey) -> str:
        """The keyed hash of the entry: 64 hex digits."""
        secret = self._known_key()
        if secret is None:
            raise UsageError(f"secret {SECRET} is missing: restore it")
        # No campaign's id holds the colon in between.
        return hmac.digest(secret, key.document_id.encode(), "sha256").hex()

    def _name(self, key: EntryKey, at: str, kind: str) -> str:
        return f"{PREFIX}{self.mark(key)}/{datetime.fromisoformat(at):{_STAMP}}{kind}"

    def _known_key(self) -> bytes | None:
        if self._key is None and (stands := self._secrets.get(SECRET)) is not None:
            self._key = _checked(stands)
        return self._key


def _checked(secret: str) -> bytes:
    if not _HEX.fullmatch(secret):
        raise UsageError(
            f"secret {SECRET} should be 64 lowercase hex digits: restore it from its earlier version"
        )
    return bytes.fromhex(secret)


def _lost(number: int) -> UsageError:
    return UsageError(
        f"secret {SECRET} is missing, without which {number} erasures cannot be told from each other: restore it"
    )


def _mark_of(name: str) -> str:
    return name.removeprefix(PREFIX).partition("/")[0]


def _time_of(name: str) -> str:
    stamp = name.rpartition("/")[2].removesuffix(_LINE).removesuffix(_DONE)
    return iso(datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC).timestamp())
