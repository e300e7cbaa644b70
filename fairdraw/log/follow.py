"""A log as everybody can follow it, from static files: it is verified whole, and each draw in it is accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fairdraw.documents import as_document
from fairdraw.errors import DrawError, UsageError
from fairdraw.log import tree
from fairdraw.log.account import DrawAccount
from fairdraw.log.keys import LogKeys
from fairdraw.log.leaves import CHECKPOINT, Kind, LogLeaf, LogState
from fairdraw.log.note import Checkpoint, Note, NoteError
from fairdraw.log.parts import published
from fairdraw.log.place import Place, Read
from fairdraw.maths.files import sha256_hex
from fairdraw.terms import iso


@dataclass(frozen=True, slots=True)
class FollowedLog:
    """A log as it was found."""

    # Its name, which checkpoints begin with.
    origin: str
    # The number of its leaves.
    size: int
    # The root over all of them.
    root: str
    # The note, to be compared with later ones.
    checkpoint: str
    keys: tuple[str, ...]
    # How many witnesses have to cosign.
    needed: int
    # The time at which each cosigned, by name.
    witnesses: dict[str, str]
    # How many leaves are decided and not published.
    waiting: int
    # The campaigns whose draw was annulled.
    annulled: tuple[str, ...]
    # The leaves that were asked for, with their indexes.
    leaves: tuple[tuple[int, LogLeaf], ...]
    # What is wrong, as sentences.
    findings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        shown = [{"index": index, **leaf.as_document()} for index, leaf in self.leaves]
        return as_document(self) | {"leaves": shown}


def follow(
    place: Place,
    *,
    now: float,
    campaign_id: str | None = None,
    trusted: LogKeys | None = None,
    kept: bytes | None = None,
) -> FollowedLog:
    """Verify the log, and account for every draw in it, or for one campaign's. `kept` is a checkpoint that was read
    earlier: the log must continue it.

    Raises UsageError where there is no log; DrawError if it does not hold together, so that nothing in it can be
    relied on.
    """
    read = place.read
    found = published(read, trusted)
    if found is None:
        raise UsageError("there is no log: no draw has written to it yet, or this is not its place")
    state, keys = found
    note = state.note
    if note is None:
        raise AssertionError("a log that was verified has a checkpoint")
    try:
        cosigned = note.verified(keys.quorum.witnesses)
    except NoteError as error:
        raise DrawError(CHECKPOINT, str(error)) from None
    findings = list(_tiles(read, state))
    if not keys.quorum.is_met_by([each.key for each in cosigned]):
        findings.append(f"{len(cosigned)} witnesses cosigned the checkpoint (needed: {keys.quorum})")
    if kept is not None:
        findings += _continues(state, kept, keys)
    leaves = [(index, state.leaf(index)) for index in range(state.size)]
    campaigns = dict.fromkeys(leaf.campaign_id for _, leaf in leaves if leaf.kind is not Kind.KEY)
    if campaign_id is not None:
        campaigns = dict.fromkeys([campaign_id])
    for each in campaigns:
        findings += DrawAccount(place, state, keys, each, now).findings()
    annulled = {leaf.campaign_id for _, leaf in leaves if leaf.kind is Kind.ANNULLED}
    return FollowedLog(
        origin=state.origin,
        size=state.size,
        root=state.checkpoint.root.hex(),
        checkpoint=str(note),
        keys=tuple(map(str, keys.log)),
        needed=keys.quorum.need,
        witnesses={each.key.name: iso(each.at or 0) for each in cosigned},
        waiting=_waiting(read, state.size),
        annulled=tuple(each for each in campaigns if each in annulled),
        leaves=tuple(each for each in leaves if campaign_id in (None, each[1].campaign_id)),
        findings=tuple(findings),
    )


def _tiles(read: Read, state: LogState) -> Iterator[str]:
    for path, data in tree.all_tiles(state.nodes):
        if (stored := read(f"log/{path}")) != data:
            what = "is missing" if stored is None else "has other hashes than the entries"
            yield f"{path} {what}: other monitors of this log cannot read it"


def _continues(state: LogState, kept: bytes, keys: LogKeys) -> Iterator[str]:
    """Compare with a checkpoint that was signed earlier."""
    try:
        note = Note.parse(kept)
        before = Checkpoint.parse(note.text)
        signed = note.verified(keys.log)
    except NoteError as error:
        raise UsageError(f"the checkpoint that was kept is not one: {error}") from None
    if before.origin != state.origin:
        raise UsageError(f"the checkpoint that was kept is of the log {before.origin}, not of {state.origin}")
    by = "signed by this log" if signed else "signed by a key that is not of this log any more"
    current = {sha256_hex(str(key).encode()) for key in keys.log}
    later = [state.leaf(index) for index in range(before.size, state.size)]
    if not signed and not any(leaf.kind is Kind.KEY and leaf.hash in current for leaf in later):
        yield "the log has another key than the one that signed the checkpoint that was kept, and no leaf says so"
    if before.size > state.size:
        yield (
            f"the log has {state.size} leaves, an earlier checkpoint ({by}) had {before.size}: an old log is shown"
        )
    elif tree.root_over(state.nodes[: before.size]) != before.root:
        yield f"the log was rewritten: its first {before.size} leaves are not those of an earlier checkpoint ({by})"


def _waiting(read: Read, size: int) -> int:
    number = 0
    while read(f"log/{tree.bundle_path(size + number + 1)}") is not None:
        number += 1
    return number
