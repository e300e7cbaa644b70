"""Whose signatures count: the keys of a log, its witnesses, and how many of these have to cosign."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import inf

from fairdraw.log.note import COSIGNATURES, SIGNATURE, NoteError, VerifierKey
from fairdraw.maths.files import Fields

# The fields of keys.json.
LOG_KEYS = ("log", "need", "witnesses")


@dataclass(frozen=True, slots=True)
class Quorum:
    """Who has to cosign: at least `need` of the members, each the key of a witness or a group like this one.

    No key is in it twice. With `need` 0 none of them has to.
    """

    need: int = 0
    members: tuple[VerifierKey | Quorum, ...] = ()

    @property
    def witnesses(self) -> tuple[VerifierKey, ...]:
        groups = [each.witnesses if isinstance(each, Quorum) else (each,) for each in self.members]
        return tuple(key for group in groups for key in group)

    @property
    def colluders(self) -> int:
        """How many witnesses at least have to collude with the operator, so that two histories of the log are both
        cosigned by enough. 0: none has to, because two sets that share no witness are each enough.
        """
        # A member counts for both histories at its own price, and for one of them for nothing.
        prices = sorted(each.colluders if isinstance(each, Quorum) else 1 for each in self.members)
        return sum(prices[: max(0, 2 * self.need - len(prices))])

    def met_at(self, times: Mapping[VerifierKey, float]) -> float:
        """When enough had cosigned, by the time of each key's cosignature; infinite for never."""
        if not self.need:
            return -inf
        found = [
            each.met_at(times) if isinstance(each, Quorum) else times.get(each, inf) for each in self.members
        ]
        return sorted(found)[self.need - 1]

    def __str__(self) -> str:
        groups = any(isinstance(each, Quorum) for each in self.members)
        return f"{self.need} of {len(self.members)}" + (" groups" if groups else "")

    def is_met_by(self, keys: Collection[VerifierKey]) -> bool:
        return self.met_at(dict.fromkeys(keys, 0.0)) < inf


@dataclass(frozen=True, slots=True)
class LogKeys:
    """The keys of a log, and the quorum of its witnesses."""

    log: tuple[VerifierKey, ...] = ()
    quorum: Quorum = field(default_factory=Quorum)

    @staticmethod
    def read(fields: Fields) -> LogKeys:
        """Read `{"log": [key], "need": n, "witnesses": [key]}`. Raises DrawError."""
        witnesses, need = keys_in(fields, "witnesses", COSIGNATURES), fields.integer("need")
        if need > len(witnesses):
            fields.refuse("need", f"{need} witnesses of {len(witnesses)} cannot be needed")
        return LogKeys(keys_in(fields, "log", (SIGNATURE,)), Quorum(need, witnesses))


def keys_in(fields: Fields, key: str, kinds: Collection[int]) -> tuple[VerifierKey, ...]:
    """The list of keys under `key`, each of one of these types; none is there twice. Raises DrawError."""
    found: list[VerifierKey] = []
    for each in fields.list(key):
        if not isinstance(each, str):
            fields.refuse(key, "texts of keys are needed")
        try:
            found.append(key_of(each, kinds))
        except NoteError as error:
            fields.refuse(key, str(error))
    try:
        require_distinct(found, names=key == "witnesses")
    except NoteError as error:
        fields.refuse(key, str(error))
    return tuple(found)


def key_of(text: str, kinds: Collection[int]) -> VerifierKey:
    """Read a key of one of these types. Raises NoteError."""
    key = VerifierKey.parse(text)
    if key.kind not in kinds:
        wanted = " or ".join(f"0x{kind:02x}" for kind in kinds)
        raise NoteError(f"the key of {key.name} has type 0x{key.kind:02x}, not {wanted}")
    return key


def require_distinct(keys: Collection[VerifierKey], *, names: bool) -> None:
    """Raise NoteError for a key that is there twice, and with `names` for a name: each would count as two."""
    seen: dict[object, str] = {}
    for key in keys:
        for mark in (key.public, *([key.name] if names else [])):
            if mark in seen:
                raise NoteError(f"{key.name} and {seen[mark]} are the same: one would count as two")
            seen[mark] = key.name
