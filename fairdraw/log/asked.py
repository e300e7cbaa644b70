"""What the witnesses of a log say when they are asked: the last checkpoint that each of them signed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fairdraw.log import tree
from fairdraw.log.http import HttpAnswer, NoAnswer
from fairdraw.log.leaves import LogState
from fairdraw.log.note import Checkpoint, Note, NoteError, VerifierKey

# The answer to a GET.
Get = Callable[[str], HttpAnswer]


class Asked(NamedTuple):
    """The answer of one witness."""

    name: str
    # A sentence.
    text: str
    # Whether it signed another history than the one that is shown here.
    is_finding: bool = False


def ask_witnesses(
    witnesses: Sequence[VerifierKey],
    addresses: Mapping[VerifierKey, str],
    state: LogState,
    log_keys: Sequence[VerifierKey],
    get: Get,
) -> list[Asked]:
    """Compare what each witness signed last with `state`, which has the leaves that wait, too."""
    origin = hashlib.sha256(state.origin.encode()).hexdigest()
    found = []
    for key in witnesses:
        if (address := addresses.get(key)) is None:
            found.append(Asked(key.name, "not asked: its address is not known"))
            continue
        try:
            status, body = get(f"{address}/{origin}/checkpoint")
            if status != 200:
                raise NoAnswer(f"status {status}")
            note = Note.parse(body)
            checkpoint = Checkpoint.parse(note.text)
            if not note.verified([key]) or not note.verified(log_keys) or checkpoint.origin != state.origin:
                raise NoAnswer("no checkpoint of this log that it signed")
        except (NoAnswer, NoteError) as error:
            found.append(Asked(key.name, f"no answer: {error}"))
            continue
        found.append(_compared(key.name, checkpoint, state))
    return found


def _compared(name: str, checkpoint: Checkpoint, state: LogState) -> Asked:
    size = checkpoint.size
    if size > state.size:
        return Asked(
            name,
            f"signed {size} leaves, and only {state.size} are here: an old log is shown, or another one",
            True,
        )
    if tree.root_over(state.nodes[:size]) != checkpoint.root:
        return Asked(name, f"signed other first {size} leaves: two people are shown two logs", True)
    return Asked(name, f"signed the same first {size} leaves")
