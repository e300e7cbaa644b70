"""Each dead letter beside the truth as it is now: is what it asks for still to be done?

An entry is read consistently in the demand table and in the replica, a chunk in its plan, a message to a fan in the
outbox, an event is held against its schema. Where nothing can be asked the answer is `unknown`, not a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from regworkers_core.adapters.mongo.entry_documents import UNSTORABLE, Stored, same_content
from regworkers_core.adapters.mongo.outbox import RowStatus
from regworkers_core.domain.entry import Entry
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MessageType
from regworkers_core.domain.order import is_erased, lenient_order
from regworkers_core.domain.reasons import PermanentFailure
from regworkers_core.domain.selection import Chunk
from regworkers_core.operations.dead_letters.letters import DeadMessage, Item
from regworkers_core.runtime import Runtime

# Why an event does not keep to the schema of its type; None: it does.
Refusal = Callable[[Any], PermanentFailure | None]


class Verdict(StrEnum):
    """`superseded` and `gone` may be dropped without loss; the body of what is `unreadable` says nothing at all."""

    NEEDED = "needed"
    UNKNOWN = "unknown"
    UNREADABLE = "unreadable"
    SUPERSEDED = "superseded"
    GONE = "gone"


# A message is worth what the worthiest of its items is worth.
_WORTH = tuple(Verdict)
SETTLED = frozenset({Verdict.SUPERSEDED, Verdict.GONE})
WORDS: Mapping[Verdict, str] = {
    Verdict.NEEDED: "still needed",
    Verdict.UNKNOWN: "cannot tell",
    Verdict.UNREADABLE: "cannot be read",
    Verdict.SUPERSEDED: "superseded, safe to drop",
    Verdict.GONE: "gone, safe to drop",
}


@dataclass(frozen=True, slots=True)
class Truth:
    """`fails_again`: what refused it stands as it was, so that sending it again cannot help."""

    verdict: Verdict
    why: str
    fails_again: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """A message with the truth about each of its items."""

    letter: DeadMessage
    items: Sequence[Truth]
    verdict: Verdict

    @property
    def why(self) -> str:
        """Of the item that decides."""
        return next((truth.why for truth in self.items if truth.verdict is self.verdict), "")

    def may_be_needed_beyond(self, campaign_id: str) -> bool:
        """Whether an item of another campaign (or of none that can be read) is neither superseded nor gone."""
        return any(
            truth.verdict not in SETTLED and item.campaign_id != campaign_id
            for item, truth in zip(self.letter.items, self.items, strict=False)
        )

    @property
    def fails_again(self) -> bool:
        return self.letter.unreadable is not None or any(truth.fails_again for truth in self.items)


class Judge(Protocol):
    def __call__(self, letters: Sequence[DeadMessage]) -> list[Judged]:
        """In the order of `letters`. Raises TransientFailure when the truth cannot be read."""
        ...


class Truths:
    """`Judge` over the runtime's stores. `refusal` belongs to the flow of events, which this one does not know."""

    def __init__(self, runtime: Runtime, refusal: Refusal) -> None:
        self._runtime, self._refusal = runtime, refusal

    def __call__(self, letters: Sequence[DeadMessage]) -> list[Judged]:
        known: dict[int, Truth] = {}
        for kind in {letter.queue.kind for letter in letters}:
            same = (letter for letter in letters if letter.queue.kind is kind)
            known.update(
                self._read(
                    kind, [item for letter in same for item in letter.items if item.subject is not None]
                )
            )
        return [_judged(letter, known) for letter in letters]

    def _read(self, kind: MessageType, items: Sequence[Item]) -> dict[int, Truth]:
        """By the identity of each item."""
        if not items:
            return {}
        match kind:
            case MessageType.REPLICATE:
                return self._entries(items)
            case MessageType.ASSIGN:
                return self._chunks(items)
            case MessageType.NOTIFY:
                return self._notices(items)
            case MessageType.PUBLISH:
                return {id(item): event_truth(self._refusal(item.subject)) for item in items}

    def _entries(self, items: Sequence[Item]) -> dict[int, Truth]:
        truths = self.of_entries([item.subject for item in items if isinstance(item.subject, EntryKey)])
        return {id(item): truths[item.subject] for item in items if isinstance(item.subject, EntryKey)}

    def of_entries(self, keys: Sequence[EntryKey]) -> dict[EntryKey, Truth]:
        """The replica first: the source is then the later look, and nothing counts as gone that is being saved."""
        distinct = list(dict.fromkeys(keys))
        stored = self._runtime.replica.get(distinct)
        source = self._runtime.demand_table.get(distinct)
        return {key: entry_truth(key, source.get(key), stored.get(key)) for key in distinct}

    def _notices(self, items: Sequence[Item]) -> dict[int, Truth]:
        """One read of the rows, and one of the draw of each of their campaigns."""
        rows = {
            row["_id"]: row
            for row in self._runtime.outbox.rows(sorted({str(item.subject) for item in items}))
        }
        named = {row["campaignId"] for row in rows.values() if "campaignId" in row}
        draws = {name: self._runtime.draws.light(name) for name in named}

        def changed_by(row: Mapping[str, Any] | None) -> str | None:
            draw = draws.get(row.get("campaignId", "")) if row else None
            if row is None or draw is None:
                return None
            if draw.annulled:
                return "the annulment of the draw"
            phase = draw.phases.get(row.get("heldFor", 0))
            return f"phase {phase.phase}" if phase is not None and "confirmedAt" in phase.fields else None

        found = {id(item): rows.get(str(item.subject)) for item in items}
        return {name: notice_truth(row, changed_by(row)) for name, row in found.items()}

    def _chunks(self, items: Sequence[Item]) -> dict[int, Truth]:
        rows = self._runtime.chunks.get(sorted({item.id for item in items}))
        return {
            id(item): chunk_truth(item.subject, rows.get(item.id))
            for item in items
            if isinstance(item.subject, Chunk)
        }


def entry_truth(key: EntryKey, item: Mapping[str, Any] | None, stored: Stored | None) -> Truth:
    """Of an entry: `item` as the demand table has it, `stored` as the replica has it."""
    live = stored is not None and stored.fields is not None
    if (
        item is not None
        and stored is not None
        and is_erased(lenient_order(item).created_at, stored.erased_at)
    ):
        return Truth(
            Verdict.GONE, "the fan was erased: `regworkers erase --pending` takes the source's entry out"
        )
    if item is None:
        if live:
            return Truth(Verdict.NEEDED, "the replica still holds an entry that was removed")
        return Truth(Verdict.GONE, "the entry is neither in the source nor in the replica")
    try:
        entry = Entry.parse(key, item)
        same = stored is not None and same_content(entry.fields, stored.fields) if live else False
    except PermanentFailure as failure:
        return Truth(Verdict.NEEDED, f"the source is not corrected: {failure.error}", fails_again=True)
    except UNSTORABLE:
        return Truth(Verdict.NEEDED, "the source is not corrected: MongoDB cannot hold it", fails_again=True)
    if stored is None:
        return Truth(Verdict.NEEDED, "the replica does not have the entry")
    if not live:
        if stored.order >= entry.order:
            return Truth(
                Verdict.NEEDED, "a tombstone hides the entry: `regworkers reconcile --repair` removes it"
            )
        return Truth(Verdict.NEEDED, "the replica has a tombstone of an earlier life of the entry")
    if stored.order > entry.order:
        return Truth(Verdict.SUPERSEDED, "the replica holds a newer state than the source")
    if stored.order < entry.order or not same:
        return Truth(Verdict.NEEDED, "the replica holds an older state")
    if entry.needs_replication:
        return Truth(Verdict.NEEDED, "the replica holds the state, its event and flag are still due")
    return Truth(Verdict.SUPERSEDED, "source and replica hold the same state")


def chunk_truth(chunk: Chunk, row: Mapping[str, Any] | None) -> Truth:
    """Of a chunk of winners: `row` is as it was planned."""
    if row is None:
        return Truth(Verdict.GONE, "no such chunk is planned")
    if (row["first"], row["last"], row["resultHash"]) != (chunk.first, chunk.last, chunk.result_hash):
        return Truth(Verdict.GONE, "the plan has another chunk of this number")
    if "doneAt" in row:
        return Truth(Verdict.SUPERSEDED, "the chunk is done")
    return Truth(Verdict.NEEDED, "the chunk is not done")


def notice_truth(row: Mapping[str, Any] | None, changed_by: str | None = None) -> Truth:
    """Of a message to a fan: `row` is its row in the outbox, `changed_by` what has made it untrue."""
    if row is None:
        return Truth(Verdict.GONE, "the outbox owes no such message")
    if changed_by is not None:
        return Truth(Verdict.SUPERSEDED, f"{changed_by} has made it untrue")
    if row["status"] == RowStatus.SUPERSEDED:
        return Truth(Verdict.SUPERSEDED, "it holds no longer, and the outbox will not send it")
    if row["status"] == RowStatus.SENT:
        return Truth(
            Verdict.UNKNOWN, "the mailer had it and drops repeats by key; only it knows what it sent"
        )
    return Truth(Verdict.SUPERSEDED, "the outbox has it as not sent yet, and sends it itself")


def event_truth(refused: PermanentFailure | None) -> Truth:
    """Of an event: readers drop what they know by its id, so it may be sent as often as one likes."""
    if refused is not None:
        return Truth(Verdict.NEEDED, f"the schema refuses it: {refused.error}", fails_again=True)
    return Truth(Verdict.NEEDED, "the event keeps to its schema and was not published by this message")


def _judged(letter: DeadMessage, known: Mapping[int, Truth]) -> Judged:
    if letter.unreadable is not None:
        why = Truth(Verdict.UNREADABLE, letter.unreadable, fails_again=True)
        return Judged(letter, [why], Verdict.UNREADABLE)
    truths = [
        known.get(id(item)) or Truth(Verdict.UNKNOWN, f"nothing to look up: {item.problem}", fails_again=True)
        for item in letter.items
    ]
    if not truths:
        return Judged(letter, [Truth(Verdict.GONE, "it carries no item")], Verdict.GONE)
    return Judged(letter, truths, min((truth.verdict for truth in truths), key=_WORTH.index))
