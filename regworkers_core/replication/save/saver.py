"""Saving entries, in the order that loses nothing: read, write, event, clear ("Replication, exactly").

The message is never trusted: a consistent read of the demand table decides what is written. Every step is
idempotent, so a crash between any two of them costs a repeat and nothing else. What fails for some entries of a batch
comes again for them alone.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from regworkers_core.adapters.aws.demand_table import Cleared
from regworkers_core.adapters.mongo.entry_documents import Effect, Write
from regworkers_core.domain.entry import Entry
from regworkers_core.domain.events import entry_removed, entry_replicated
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import (
    MessageType,
    Op,
    ReplicationItem,
    chunks,
    encode,
    fit_correlation_id,
)
from regworkers_core.domain.order import Order, lenient_order
from regworkers_core.domain.reasons import (
    Failure,
    ItemFailure,
    LeftOver,
    PermanentFailure,
    TransientFailure,
)
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.ports import Outgoing, Queue, SendFailure
from regworkers_core.engine.steps import OnStep, no_step
from regworkers_core.observability.logs import Passed, entries_passed, wants_entries
from regworkers_core.observability.tracing import inject
from regworkers_core.replication.save.open_letters import OpenLetters
from regworkers_core.replication.send import send_keys

_CAMPAIGN_MEMORY_SECONDS = 60.0


class DemandReads(Protocol):
    def get(self, keys: Sequence[EntryKey]) -> dict[EntryKey, dict[str, Any]]: ...
    def clear_flags(self, entries: Sequence[Entry], replicated_at: str) -> Cleared: ...


class ReplicaWrites(Protocol):
    def apply(self, writes: Sequence[Write], *, at: str, run_id: str) -> dict[EntryKey, Effect | Failure]: ...


class KnownCampaigns(Protocol):
    def known(self, ids: set[str]) -> set[str]: ...


@dataclass(slots=True)
class Wanted:
    """What the messages of a batch say about one key: who asked first, who else, and the order of a removed image."""

    message_id: str
    correlation_id: str
    removed: Order | None = None
    also: tuple[str, ...] = ()

    def add(self, item: ReplicationItem, message_id: str) -> None:
        if message_id != self.message_id:
            self.also += (message_id,)
        if item.op is Op.REMOVE:
            self.removed = item.order if self.removed is None else max(self.removed, item.order)


@dataclass(slots=True)
class Saved:
    """One outcome of `engine.drain.OUTCOMES` or a Failure for every wanted key; `counts` beside them.

    `refused` has the order of each state that is not a valid entry: a dead letter holds for that state only.
    """

    outcomes: dict[EntryKey, str | Failure] = field(default_factory=dict)
    refused: dict[EntryKey, Order] = field(default_factory=dict)
    lags: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


# What the replica holds after these is the source's state as read.
_IN_STEP = (Effect.APPLIED, Effect.HEALED, Effect.UNCHANGED, Effect.REPEATED)


def _is_still(entry: Entry, item: Mapping[str, Any] | None) -> bool:
    """Whether the source still holds this state. Types count, so texts are compared; where only the order of names
    differs in them, the key is sent once more for nothing.
    """
    if item is None:
        return False
    try:
        now = Entry.parse(entry.key, item)
    except PermanentFailure:
        return False
    return now.order == entry.order and repr(now.fields) == repr(entry.fields)


def _not_confirmed(failure: SendFailure) -> Failure:
    """What SQS refuses for good is about the events in that message, each of which then goes alone."""
    if failure.permanent:
        return ItemFailure(f"the event was refused: {failure.error}")
    return TransientFailure("sqs", f"event not confirmed: {failure.error}")


class Saver:
    """Shared by all threads of a drain. `run_id` goes into the custody fields."""

    def __init__(
        self,
        table: DemandReads,
        replica: ReplicaWrites,
        campaigns: KnownCampaigns,
        replication: Queue,
        analytics: Queue,
        *,
        letters: OpenLetters | None = None,
        run_id: str,
        clock: Callable[[], float] = time.time,
        on_step: OnStep = no_step,
    ) -> None:
        self._table = table
        self._replica = replica
        self._campaigns = campaigns
        self._replication = replication
        self._analytics = analytics
        self._letters = letters
        self._run_id = run_id
        self._clock = clock
        self._on_step = on_step
        self._campaign_memory: dict[str, tuple[bool, float]] = {}

    def save(self, wanted: Mapping[EntryKey, Wanted]) -> Saved:
        """Raises TransientFailure when a dependency failed for the batch as a whole."""
        saved = Saved()
        entries, writes = self._read(wanted, saved)
        self._count_unknown_campaigns(entries, saved)
        at = iso(self._clock())
        effects = self._replica.apply(writes, at=at, run_id=self._run_id) if writes else {}
        self._on_step("save.after_write")
        for write in writes:
            self._judge(write, effects[write.key], entries.get(write.key), saved)
        overtaken = self._overtaken(effects, entries, saved)
        self._publish(writes, effects, entries, wanted, at, saved)
        self._on_step("save.after_event")
        self._clear(entries, effects, overtaken, at, saved)
        self._on_step("save.after_clear")
        self._close_letters(writes, effects, saved)
        for key, outcome in saved.outcomes.items():
            if isinstance(outcome, TransientFailure):
                # Of this entry alone: what was done for the others of its message is not done again.
                saved.outcomes[key] = LeftOver.of(outcome)
        if wants_entries():
            self._log(wanted, entries, saved)
        return saved

    @staticmethod
    def _log(wanted: Mapping[EntryKey, Wanted], entries: Mapping[EntryKey, Entry], saved: Saved) -> None:
        passed: dict[str, list[Passed]] = {}
        for key, outcome in saved.outcomes.items():
            if isinstance(outcome, str):
                own = (
                    "" if key not in entries else fit_correlation_id(entries[key].fields.get("correlationId"))
                )
                id_ = own or wanted[key].correlation_id
                passed.setdefault(outcome, []).append(Passed(id_, key.campaign_id, key.entry_id))
        for outcome, some in passed.items():
            entries_passed("entry saved", some, outcome=outcome)

    def _read(
        self, wanted: Mapping[EntryKey, Wanted], saved: Saved
    ) -> tuple[dict[EntryKey, Entry], list[Write]]:
        items = self._table.get(list(wanted)) if wanted else {}
        entries: dict[EntryKey, Entry] = {}
        writes = []
        for key, want in wanted.items():
            item = items.get(key)
            if item is not None:
                try:
                    entry = Entry.parse(key, item)
                except PermanentFailure as failure:
                    saved.outcomes[key] = failure
                    saved.refused[key] = lenient_order(item)
                    continue
                entries[key] = entry
                writes.append(Write(key, entry.order, entry.fields, want.message_id, want.also))
            elif want.removed is not None:
                writes.append(Write(key, want.removed, None, want.message_id))
            else:
                # The removal has an event of its own on the stream.
                saved.outcomes[key] = "gone"
        return entries, writes

    def _judge(self, write: Write, effect: Effect | Failure, entry: Entry | None, saved: Saved) -> None:
        if isinstance(effect, Failure):
            saved.outcomes[write.key] = effect
        elif effect in (Effect.APPLIED, Effect.HEALED):
            saved.outcomes[write.key] = "applied" if write.fields is not None else "removed"
            saved.counts["healed"] += effect is Effect.HEALED
            updated_at = seconds(write.order.updated_at)
            # A repair or a backfill brings old states whose flag was cleared long ago: that is not lag.
            fresh = effect is Effect.APPLIED and entry is not None and entry.needs_replication
            if fresh and updated_at is not None:
                saved.lags.append(self._clock() - updated_at)
        else:
            saved.outcomes[write.key] = "unchanged" if effect is Effect.REPEATED else effect.value

    def _overtaken(
        self, effects: Mapping[EntryKey, Effect | Failure], entries: Mapping[EntryKey, Entry], saved: Saved
    ) -> list[Entry]:
        """Healed entries whose source is no longer as read, or cannot be read: an order alone does not tell which of
        two contents is the newer one, so another may have saved the newer one before this write.
        """
        if not saved.counts["healed"]:
            return []
        healed = [entry for key, entry in entries.items() if effects[key] is Effect.HEALED]
        try:
            now = self._table.get([entry.key for entry in healed])
        except TransientFailure:
            return healed
        return [entry for entry in healed if not _is_still(entry, now.get(entry.key))]

    def _publish(
        self,
        writes: Sequence[Write],
        effects: Mapping[EntryKey, Effect | Failure],
        entries: Mapping[EntryKey, Entry],
        wanted: Mapping[EntryKey, Wanted],
        at: str,
        saved: Saved,
    ) -> None:
        """One event per saved state: due if this attempt wrote, or if an earlier one did and did not get as
        far as clearing the flag or, for an entry without one, as deleting this message. An unconfirmed event keeps its
        entry from being cleared.
        """
        due, events = [], []
        for write in writes:
            effect, entry = effects[write.key], entries.get(write.key)
            wrote = effect in (Effect.APPLIED, Effect.HEALED)
            earlier = effect is Effect.UNCHANGED and (entry is None or entry.needs_replication)
            if not (wrote or earlier or effect is Effect.REPEATED):
                continue
            correlation_id = wanted[write.key].correlation_id
            own = "" if entry is None else fit_correlation_id(entry.fields.get("correlationId"))
            due.append(write.key)
            events.append(
                entry_removed(write.key, write.order, at, correlation_id)
                if entry is None
                else entry_replicated(entry, at, own or correlation_id)
            )
        if not events:
            return
        runs = list(chunks(events))
        attributes = {"attempt": "1", **inject()}
        messages = [
            Outgoing(
                encode(MessageType.PUBLISH, run[0]["correlationid"], run),
                {"correlationId": run[0]["correlationid"], **attributes},
            )
            for run in runs
        ]
        unconfirmed = {failure.index: failure for failure in self._analytics.send(messages)}
        position = 0
        for index, run in enumerate(runs):
            for key in due[position : position + len(run)]:
                if index in unconfirmed:
                    saved.outcomes[key] = _not_confirmed(unconfirmed[index])
            position += len(run)
        saved.counts["events"] += len(events)

    def _clear(
        self,
        entries: Mapping[EntryKey, Entry],
        effects: Mapping[EntryKey, Effect | Failure],
        overtaken: Sequence[Entry],
        at: str,
        saved: Saved,
    ) -> None:
        """Clear the flag where the replica now holds the state as read; a key that changed since goes back
        on the queue.
        """
        left_alone = {entry.key for entry in overtaken}
        clearable = [
            entry
            for key, entry in entries.items()
            if entry.needs_replication
            and effects[key] in _IN_STEP
            and key not in left_alone
            and not isinstance(saved.outcomes[key], Failure)
        ]
        changed, failed = self._table.clear_flags(clearable, at) if clearable else ([], [])
        for entry, failure in failed:
            saved.outcomes[entry.key] = failure
        saved.counts["cleared"] += len(clearable) - len(changed) - len(failed)
        again = [*overtaken, *changed]
        saved.counts["changed_meanwhile"] += len(again)
        if again:
            self._send_again(again, saved)

    def _send_again(self, entries: Sequence[Entry], saved: Saved) -> None:
        """As removals of the state that was just written: where the entry is gone by now, and its own removal was
        saved before this write, nothing else would bury it.
        """
        try:
            send_keys(
                self._replication, [ReplicationItem(entry.key, Op.REMOVE, entry.order) for entry in entries]
            )
        except TransientFailure as failure:
            for entry in entries:
                if not isinstance(saved.outcomes[entry.key], Failure):
                    saved.outcomes[entry.key] = failure

    def _close_letters(
        self, writes: Sequence[Write], effects: Mapping[EntryKey, Effect | Failure], saved: Saved
    ) -> None:
        """What could not be saved before is saved now, or a newer state is."""
        if self._letters is None:
            return
        failed = [key for key, outcome in saved.outcomes.items() if isinstance(outcome, Failure)]
        stands = {
            write.key: write.order
            for write in writes
            if effects[write.key] is not Effect.RESURRECTED
            and not isinstance(saved.outcomes[write.key], Failure)
        }
        self._letters.expect(failed)
        saved.counts["letters_closed"] += self._letters.close(stands)

    def _count_unknown_campaigns(self, entries: Mapping[EntryKey, Entry], saved: Saved) -> None:
        """Entries of a campaign that nobody knows are saved all the same, and counted."""
        now = self._clock()
        ids = {key.campaign_id for key in entries}
        ask = {id_ for id_ in ids if self._campaign_memory.get(id_, (False, 0.0))[1] <= now}
        if ask:
            known = self._campaigns.known(ask)
            expires = now + _CAMPAIGN_MEMORY_SECONDS
            self._campaign_memory.update((id_, (id_ in known, expires)) for id_ in ask)
        unknown = {id_ for id_ in ids if not self._campaign_memory[id_][0]}
        saved.counts["unknown_campaign"] += sum(key.campaign_id in unknown for key in entries)
