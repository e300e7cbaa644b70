"""Cosignatures from the witnesses that the settings name: the client of C2SP tlog-witness.

A witness signs a checkpoint after a proof that it continues the one that the witness signed before. So an operator who
shows two people two logs needs every witness to agree.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fairdraw import scheduling
from fairdraw.log.http import Ask, LogHttp, NoAnswer
from fairdraw.log.note import COSIGNATURES, Note, NoteError, Signature, VerifierKey
from fairdraw.log.tree import StoredTree
from fairdraw.log.trust import key_of
from regworkers_core.domain.reasons import UsageError
from regworkers_core.runtime import Runtime

_SIZE = re.compile(r"(0|[1-9][0-9]{0,15})\n")
# A witness that was asked by another writer meanwhile answers with its size once more.
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Witness:
    url: str
    key: VerifierKey
    # Where it can be asked for the last checkpoint that it signed.
    monitoring_url: str | None = None


class Cosigned(NamedTuple):
    signatures: list[Signature]
    problems: list[str]  # a line for each witness without a right one


class Witnesses:
    """All witnesses, of which `needed` must cosign. `ask` sends one request, see `fairdraw.log.http`."""

    def __init__(self, witnesses: Sequence[Witness], needed: int, ask: Ask) -> None:
        self._witnesses, self.needed, self._ask = tuple(witnesses), needed, ask

    @classmethod
    def of(cls, runtime: Runtime) -> Witnesses:
        """Raises UsageError for a key that is none of a witness."""
        settings = runtime.settings.selection.log
        found = []
        for number, each in enumerate(settings.witnesses):
            try:
                key = key_of(each.vkey, COSIGNATURES)
            except NoteError as error:
                raise UsageError(f"selection.log.witnesses[{number}].vkey: {error}") from None
            monitoring = each.monitoring_url and each.monitoring_url.rstrip("/")
            found.append(Witness(each.url.rstrip("/"), key, monitoring))
        return cls(found, settings.needed, LogHttp(settings.timeout_seconds).post)

    @property
    def keys(self) -> list[VerifierKey]:
        return [each.key for each in self._witnesses]

    @property
    def monitored(self) -> dict[VerifierKey, str]:
        """The addresses of those that can be asked."""
        return {each.key: each.monitoring_url for each in self._witnesses if each.monitoring_url}

    def cosign(self, note: Note, tree: StoredTree, known: int) -> Cosigned:
        """Ask all witnesses at once about the checkpoint of `tree`; `known` is the size that they probably know."""
        found, problems = made = Cosigned([], [])
        if not self._witnesses:
            return made
        with scheduling.pool(len(self._witnesses), "witnesses") as pool:
            asked = [
                (each.key.name, pool.submit(self._cosigned, each, note, tree, known))
                for each in self._witnesses
            ]
            for name, answer in asked:
                try:
                    found.append(answer.result())
                except (NoAnswer, NoteError) as error:
                    problems.append(f"{name}: {error}")
        return made

    def _cosigned(self, witness: Witness, note: Note, tree: StoredTree, old: int) -> Signature:
        for _ in range(_ATTEMPTS):
            status, answer = self._ask(f"{witness.url}/add-checkpoint", _request(note, tree, old))
            if status == 200:
                return _signature(witness.key, note, answer)
            size = _SIZE.fullmatch(answer.decode("ascii", "replace"))
            if status != 409 or size is None or int(size[1]) == old:
                break
            old = int(size[1])
            if old > tree.size:
                raise NoAnswer(f"it knows a log of size {old}, this one has {tree.size}")
        raise NoAnswer(f"status {status}")


def _request(note: Note, tree: StoredTree, old: int) -> bytes:
    proof = "".join(f"{base64.b64encode(node).decode()}\n" for node in tree.consistency(old))
    return f"old {old}\n{proof}\n{note}".encode()


def _signature(key: VerifierKey, note: Note, answer: bytes) -> Signature:
    """The witness's cosignature among the lines of an answer. Raises NoteError."""
    more = Note.parse(f"{note.text}\n".encode() + answer)
    if not more.verified([key]):
        raise NoteError("no cosignature by its key in the answer")
    return next(each for each in more.signatures if (each.name, each.key_id) == (key.name, key.key_id))
