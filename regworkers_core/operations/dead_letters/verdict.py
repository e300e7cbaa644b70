"""Whether a dead letter is still needed, and who works on its queue: one command at a time, each recorded.

Each message is compared with the stores as they are now. An entry is read from the replica and, consistently, from the
demand table; a chunk from its plan; a message to a fan from the outbox; an event is validated against its schema. Where
nothing can be read, the verdict is `unknown`.

An open document of `dead_letters` means that an entry's state is refused, and reconcile relies on it. The save drain
closes the documents of entries that it saves. The functions here close the others: entries that were removed, chunks
that are done, states that were saved in another way, and messages that were redriven or dropped and whose verdict can
never be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

from regworkers_core.adapters.mongo.activity import operator
from regworkers_core.adapters.mongo.codes import Code, CodeStatus
from regworkers_core.adapters.mongo.entry_documents import UNSTORABLE, Stored, same_content
from regworkers_core.adapters.mongo.outbox import RowStatus
from regworkers_core.domain.entry import Entry, is_erased, lenient_order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MessageType
from regworkers_core.domain.reasons import PermanentFailure, Reason, UsageError
from regworkers_core.domain.redemption import Statement
from regworkers_core.domain.selection import Chunk
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import Lease, LeaseBusy, LeaseHolder, held_lease
from regworkers_core.operations.dead_letters.model import DeadMessage, DeadQueue, Item
from regworkers_core.runtime import Runtime


class DeadLetterVerdict(StrEnum):
    """`superseded` and `gone` may be dropped without loss; the body of an `unreadable` message says nothing.

    In order of severity: a message takes the most severe verdict of its items.
    """

    NEEDED = "needed"
    UNKNOWN = "unknown"
    UNREADABLE = "unreadable"
    SUPERSEDED = "superseded"
    GONE = "gone"


_SEVERITY = tuple(DeadLetterVerdict)
SETTLED = frozenset({DeadLetterVerdict.SUPERSEDED, DeadLetterVerdict.GONE})
# Queues whose messages have a stored state that says when they are settled.
PROVABLE = frozenset({MessageType.REPLICATE, MessageType.ASSIGN})
WORDS: Mapping[DeadLetterVerdict, str] = {
    DeadLetterVerdict.NEEDED: "still needed",
    DeadLetterVerdict.UNKNOWN: "cannot tell",
    DeadLetterVerdict.UNREADABLE: "cannot be read",
    DeadLetterVerdict.SUPERSEDED: "superseded, safe to drop",
    DeadLetterVerdict.GONE: "gone, safe to drop",
}


def verdicts_in_words(cause: Mapping[str, Any]) -> str:
    """The verdicts of a cause as a document: `12 still needed; 3 would fail again`. Empty if none was read."""
    found = [
        f"{number} {WORDS[DeadLetterVerdict(name)]}"
        for name, number in cause.get("verdicts", {}).items()
        if number
    ]
    again = f"; {cause['failAgain']} would fail again" if cause.get("failAgain") else ""
    return ", ".join(found) + again


@dataclass(frozen=True, slots=True)
class ItemVerdict:
    """`fails_again`: what was refused has not changed, so a redrive cannot help."""

    verdict: DeadLetterVerdict
    why: str
    fails_again: bool = False


@dataclass(frozen=True, slots=True)
class Assessed:
    """A message with the verdict on each of its items."""

    message: DeadMessage
    items: Sequence[ItemVerdict]
    verdict: DeadLetterVerdict

    @property
    def why(self) -> str:
        """The reason of the item that decides."""
        return next((item.why for item in self.items if item.verdict is self.verdict), "")

    def may_be_needed_beyond(self, campaign_id: str) -> bool:
        """Whether an item of another campaign, or of none that can be read, is neither superseded nor gone."""
        return any(
            found.verdict not in SETTLED and item.campaign_id != campaign_id
            for item, found in zip(self.message.items, self.items, strict=False)
        )

    @property
    def fails_again(self) -> bool:
        return self.message.unreadable is not None or any(item.fails_again for item in self.items)


# Assesses messages and keeps their order. Raises TransientFailure when a store cannot be read.
Assess = Callable[[Sequence[DeadMessage]], list[Assessed]]


class Assessor:
    """`Assess` over the runtime's stores. `refusal` says why an event does not match its schema, None if it does."""

    def __init__(self, runtime: Runtime, refusal: Callable[[Any], PermanentFailure | None]) -> None:
        self._runtime, self._refusal = runtime, refusal

    def __call__(self, messages: Sequence[DeadMessage]) -> list[Assessed]:
        known: dict[int, ItemVerdict] = {}
        for kind in {message.kind for message in messages}:
            items = [
                item
                for message in messages
                if message.kind is kind
                for item in message.items
                if item.subject is not None
            ]
            if items:
                known.update(self._read(kind, items))
        return [_assessed(message, known) for message in messages]

    def entries(self, keys: Sequence[EntryKey]) -> dict[EntryKey, ItemVerdict]:
        """Reads the replica first, then the source: an entry that is just being saved never counts as gone."""
        distinct = list(dict.fromkeys(keys))
        stored = self._runtime.replica.get(distinct)
        source = self._runtime.demand_table.get(distinct)
        return {key: entry_verdict(key, source.get(key), stored.get(key)) for key in distinct}

    def _read(self, kind: MessageType, items: Sequence[Item]) -> dict[int, ItemVerdict]:
        """The verdicts by the identity of each item: two messages may hold equal ones."""
        match kind:
            case MessageType.REPLICATE:
                keys = {id(item): item.subject for item in items if isinstance(item.subject, EntryKey)}
                entries = self.entries(list(keys.values()))
                return {name: entries[key] for name, key in keys.items()}
            case MessageType.ASSIGN:
                chunks = self._runtime.chunks.get(sorted({item.id for item in items}))
                return {
                    id(item): chunk_verdict(item.subject, chunks.get(item.id))
                    for item in items
                    if isinstance(item.subject, Chunk)
                }
            case MessageType.NOTIFY:
                return self._notifications(items)
            case MessageType.REDEEMED | MessageType.BLOCKED | MessageType.COMPLETE:
                return self._statements(items)
            case MessageType.PUBLISH:
                return {id(item): event_verdict(self._refusal(item.subject)) for item in items}

    def _statements(self, items: Sequence[Item]) -> dict[int, ItemVerdict]:
        found: dict[int, ItemVerdict] = {}
        for item in items:
            if isinstance(item.subject, Statement):
                draw = self._runtime.draws.light(item.campaign_id)
                codes = self._runtime.codes.by_digest(item.campaign_id, [item.subject.digest])
                watermark = draw.complete_to if draw else ""
                found[id(item)] = statement_verdict(item.subject, codes.get(item.subject.digest), watermark)
        return found

    def _notifications(self, items: Sequence[Item]) -> dict[int, ItemVerdict]:
        """Reads the rows once, and once the draw of each of their campaigns."""
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
        return {name: notification_verdict(row, changed_by(row)) for name, row in found.items()}


_needed = partial(ItemVerdict, DeadLetterVerdict.NEEDED)
_superseded = partial(ItemVerdict, DeadLetterVerdict.SUPERSEDED)
_gone = partial(ItemVerdict, DeadLetterVerdict.GONE)


def entry_verdict(key: EntryKey, item: Mapping[str, Any] | None, stored: Stored | None) -> ItemVerdict:
    """`item` is the entry in the demand table, `stored` the one in the replica."""
    live = stored is not None and stored.fields is not None
    if (
        item is not None
        and stored is not None
        and is_erased(lenient_order(item).created_at, stored.erased_at)
    ):
        return _gone("the fan was erased: `regworkers erasures repeat` removes the source's entry")
    if item is None:
        if live:
            return _needed("the replica still holds an entry that was removed")
        return _gone("the entry is neither in the source nor in the replica")
    try:
        entry = Entry.parse(key, item)
        same = stored is not None and same_content(entry.fields, stored.fields) if live else False
    except PermanentFailure as failure:
        return _needed(f"the source is not corrected: {failure.error}", fails_again=True)
    except UNSTORABLE:
        return _needed("the source is not corrected: MongoDB cannot hold it", fails_again=True)
    if stored is None:
        return _needed("the replica does not have the entry")
    if not live:
        if stored.order >= entry.order:
            return _needed("a tombstone hides the entry: `regworkers reconcile --repair --apply` removes it")
        return _needed("the replica has a tombstone of an earlier life of the entry")
    if stored.order > entry.order:
        return _superseded("the replica holds a newer state than the source")
    if stored.order < entry.order or not same:
        return _needed("the replica holds an older state")
    if entry.needs_replication:
        return _needed("the replica holds the state, its event and flag are still due")
    return _superseded("source and replica hold the same state")


def chunk_verdict(chunk: Chunk, row: Mapping[str, Any] | None) -> ItemVerdict:
    """`row` is the chunk as planned."""
    if row is None:
        return _gone("no such chunk is planned")
    if (row["first"], row["last"], row["resultHash"]) != (chunk.first, chunk.last, chunk.result_hash):
        return _gone("the plan has another chunk of this number")
    if "doneAt" in row:
        return _superseded("the chunk is done")
    return _needed("the chunk is not done")


def notification_verdict(row: Mapping[str, Any] | None, changed_by: str | None = None) -> ItemVerdict:
    """`row` is the message in the outbox; `changed_by` names what made its content wrong."""
    if row is None:
        return _gone("the outbox has no such message")
    if changed_by is not None:
        return _superseded(f"{changed_by} superseded it")
    if row["status"] == RowStatus.SUPERSEDED:
        return _superseded("the outbox has superseded it and will not send it")
    if row["status"] == RowStatus.SENT:
        return ItemVerdict(
            DeadLetterVerdict.UNKNOWN,
            "the mailer had it and drops repeats by key; only it knows what it sent",
        )
    return _superseded("the outbox has not sent it yet, and will")


def statement_verdict(stated: Statement, code: Code | None, watermark: str) -> ItemVerdict:
    """`code` is the one that it names, `watermark` that of its campaign."""
    if stated.kind is MessageType.COMPLETE:
        known = stated.at <= watermark
    else:
        known = code is not None and (
            code.blocked if stated.kind is MessageType.BLOCKED else code.status is CodeStatus.REDEEMED
        )
    if known:
        return _superseded("what the issuer says is known")
    return _needed("what the issuer says is not known here: settle it with the issuer")


def event_verdict(refused: PermanentFailure | None) -> ItemVerdict:
    """An event may be sent any number of times: readers drop repeats by id."""
    if refused is not None:
        return _needed(f"the schema refuses it: {refused.error}", fails_again=True)
    return _needed("the event matches its schema and was not published by this message")


def _assessed(message: DeadMessage, known: Mapping[int, ItemVerdict]) -> Assessed:
    if message.unreadable is not None:
        why = ItemVerdict(DeadLetterVerdict.UNREADABLE, message.unreadable, fails_again=True)
        return Assessed(message, [why], DeadLetterVerdict.UNREADABLE)
    if message.reason == Reason.FORGED:
        forged = ItemVerdict(
            DeadLetterVerdict.UNKNOWN,
            f"no role that may send it has signed it: {message.error}",
            fails_again=True,
        )
        return Assessed(message, [forged] * len(message.items), DeadLetterVerdict.UNKNOWN)
    verdicts = [
        known.get(id(item))
        or ItemVerdict(
            DeadLetterVerdict.UNKNOWN, f"it names nothing to read: {item.problem}", fails_again=True
        )
        for item in message.items
    ]
    if not verdicts:
        return Assessed(message, [_gone("it carries no item")], DeadLetterVerdict.GONE)
    return Assessed(message, verdicts, min((each.verdict for each in verdicts), key=_SEVERITY.index))


# The prefix of these commands in `operator_actions`.
DLQ = "dlq "
_LATEST_ACTIONS = 200
_RESOLVED = "resolved"


@dataclass(slots=True)
class Working:
    """The command at work."""

    action_id: str
    # The operator.
    who: str
    lease: Lease
    # Numbers, which the block sets.
    result: dict[str, Any] = field(default_factory=dict)
    # The block sets it if it is not `done`.
    outcome: str = "done"


@contextmanager
def working(
    runtime: Runtime, queue: DeadQueue, command: str, arguments: Mapping[str, Any], *, who: str = ""
) -> Iterator[Working]:
    """Hold the queue's lease and record the action. Raises UsageError, naming the holder, while another command works
    on the queue. Actions of this queue that never ended are recorded as killed: no other command can be at work.
    """
    name, who = f"dead-letters:{queue.source}", who or operator()
    actions = runtime.operator_actions
    try:
        with held_lease(
            runtime.leases, name, f"dlq-{command}", lease_seconds=runtime.settings.dead_letters.lease_seconds
        ) as lease:
            lease.save({"who": who, "what": command, "since": iso(runtime.clock())})
            for action in actions.history(what=DLQ, limit=_LATEST_ACTIONS):
                if action.target == queue.name and action.ended_at is None:
                    actions.ends(action.action_id, "killed", action.result)
            work = Working(actions.begins(DLQ + command, queue.name, arguments, who=who), who, lease)
            try:
                yield work
            except BaseException as error:
                failed = {**work.result, "error": type(error).__name__}
                actions.try_end(work.action_id, DLQ + command, "failed", failed)
                raise
            actions.try_end(work.action_id, DLQ + command, work.outcome, work.result)
    except LeaseBusy:
        row = runtime.leases.get(LeaseHolder.key_of(name))
        held = row.state if row is not None else {}
        what = f"{held.get('what', 'another run')} since {held.get('since', 'just now')}"
        raise UsageError(
            f"{queue.name} is being worked on by {held.get('who', 'another user')} ({what}): wait, or see "
            "`regworkers dlq history`"
        ) from None


def close_settled(runtime: Runtime, queue: DeadQueue, assessor: Assessor, *, by: str) -> int:
    """Close the open documents of a queue whose entry or chunk is settled. Returns their number."""
    if not PROVABLE.issuperset(queue.kinds):
        return 0
    closed = 0
    for page in runtime.dead_letters.open(queue.source):
        if MessageType.REPLICATE in queue.kinds:
            settled = _settled_entries(page, assessor)
        else:
            settled = _done_chunks(runtime, page)
        closed += runtime.dead_letters.close(settled, _RESOLVED, at=iso(runtime.clock()), by=by)
    return closed


def _settled_entries(page: Sequence[dict[str, Any]], assessor: Assessor) -> list[dict[str, Any]]:
    keys = {
        document["_id"]: EntryKey(document["campaignId"], document["entryId"])
        for document in page
        if isinstance(document.get("campaignId"), str) and isinstance(document.get("entryId"), str)
    }
    known = assessor.entries(list(keys.values())) if keys else {}
    return [each for each in page if each["_id"] in keys and known[keys[each["_id"]]].verdict in SETTLED]


def _done_chunks(runtime: Runtime, page: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    names = ("campaignId", "marketId", "phase", "chunk")
    ids = {document["_id"]: ":".join(str(document.get(name)) for name in names) for document in page}
    rows = runtime.chunks.get(sorted(set(ids.values())))
    return [document for document in page if "doneAt" in rows.get(ids[document["_id"]], {})]


def close_moved(runtime: Runtime, messages: Sequence[DeadMessage], *, before: str, by: str) -> None:
    """After messages were redriven or dropped: close one document that failed before `before` for each item that no
    verdict will ever close.
    """
    at = iso(runtime.clock())
    for message in messages:
        if message.kind in PROVABLE and message.unreadable is None:
            continue
        cause = {"queue": message.queue.source, "fingerprint": message.fingerprint}
        named: list[dict[str, Any]] = [{**cause, **item.fields} for item in message.items if item.fields]
        # A message that names nothing is identified by its correlation id.
        nameless = {**cause, "campaignId": None, "correlationId": message.received.correlation_id}
        for about in named or [nameless]:
            runtime.dead_letters.close_one(about, _RESOLVED, before=before, at=at, by=by)
