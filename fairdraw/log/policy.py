"""A policy of trust in a log, as C2SP tlog-policy has it: its logs, witnesses, groups of these, and a quorum."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from fairdraw.errors import DrawError
from fairdraw.log.keys import LogKeys, Quorum, key_of, require_distinct
from fairdraw.log.note import COSIGNATURES, SIGNATURE, NoteError, VerifierKey

POLICY = "policy"
_NONE = "none"
_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")


class Policy(NamedTuple):
    """What a policy says."""

    keys: LogKeys
    # Where witnesses can be asked.
    addresses: dict[VerifierKey, str]


def parse_policy(data: bytes) -> Policy:
    """Raises DrawError with the line that is wrong."""
    reader = _Reader()
    if _CONTROL.search(data):
        raise DrawError(POLICY, "a control character other than tab and line feed")
    # Names are octets: no two texts that look alike are one.
    for number, line in enumerate(data.decode("latin-1").split("\n"), 1):
        try:
            reader.line([word for word in line.replace("\t", " ").split(" ") if word])
        except NoteError as error:
            raise DrawError(POLICY, f"line {number}: {error}") from None
    if reader.quorum is None:
        raise DrawError(POLICY, "no line says the quorum")
    try:
        require_distinct(reader.logs, names=False)
        require_distinct(reader.quorum.witnesses, names=True)
    except NoteError as error:
        raise DrawError(POLICY, str(error)) from None
    return Policy(LogKeys((*reader.logs,), reader.quorum), reader.addresses)


class _Reader:
    def __init__(self) -> None:
        self.logs: list[VerifierKey] = []
        self.addresses: dict[VerifierKey, str] = {}
        self.quorum: Quorum | None = None
        self._named: dict[str, VerifierKey | Quorum] = {}
        self._members: set[str] = set()

    def line(self, words: Sequence[str]) -> None:
        """Raises NoteError."""
        match words:
            case []:
                return
            case [word, *_] if word.startswith("#"):
                return
            case ["log", vkey] | ["log", vkey, _]:
                self.logs.append(key_of(vkey, (SIGNATURE,)))
            case ["witness", name, vkey, *address] if len(address) <= 1:
                key = key_of(vkey, COSIGNATURES)
                self._name(name, key)
                for each in address:
                    self.addresses[key] = each.rstrip("/")
            case ["group", name, need, *members] if members:
                found = tuple(self._member(each) for each in members)
                count = {"all": len(found), "any": 1}.get(need) or self._number(need, len(found))
                self._name(name, Quorum(count, found))
            case ["quorum", name]:
                if self.quorum is not None:
                    _refuse("a second quorum")
                chosen = Quorum() if name == _NONE else self._defined(name)
                self.quorum = chosen if isinstance(chosen, Quorum) else Quorum(1, (chosen,))
            case _:
                _refuse(f"{' '.join(words)[:80]!a} is no line of a policy")

    def _name(self, name: str, meant: VerifierKey | Quorum) -> None:
        if name == _NONE or name in self._named:
            _refuse(f"the name {name!a} is taken")
        self._named[name] = meant

    def _defined(self, name: str) -> VerifierKey | Quorum:
        if name not in self._named:
            _refuse(f"no line before this one defines {name!a}")
        return self._named[name]

    def _member(self, name: str) -> VerifierKey | Quorum:
        if name in self._members:
            _refuse(f"{name!a} is a member already")
        self._members.add(name)
        return self._defined(name)

    @staticmethod
    def _number(text: str, most: int) -> int:
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
            _refuse(f"{text[:20]!a} is neither all, any, nor a number from 1 to {most}")
        return int(text)


def _refuse(why: str) -> NoReturn:
    raise NoteError(why)
