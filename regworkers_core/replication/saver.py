"""The save drain: saves entries in the order that loses nothing: read, write, event, clear.

The message is never trusted: a consistent read of the demand table decides what is written. Every step is idempotent,
so a crash between any two of them costs a repeat and nothing else. Entries of a batch that fail are repeated alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol

import structlog

from fairdraw import scheduling
from regworkers_core.adapters.aws.demand_table import Cleared
from regworkers_core.adapters.aws.sqs import EventQueue
from regworkers_core.adapters.mongo.entry_documents import Effect, Write
from regworkers_core.adapters.mongo.replica import Replica
from regworkers_core.domain.activity import keep_longest
from regworkers_core.domain.entry import Entry, Order
from regworkers_core.domain.events import entry_removed, entry_replicated
from regworkers_core.domain.keys import EntryKey, is_personal
from regworkers_core.domain.messages import ItemSubject, MessageType, Op, ReplicationItem, fit_correlation_id
from regworkers_core.domain.reasons import Failure, ItemFailure, LeftOver, PermanentFailure, TransientFailure
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.handling import Handled, Requested
from regworkers_core.engine.queue import QUEUE_SERVICE, Queue, SendFailure
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.observability.logs import Passed, entries_passed, wants_entries
from regworkers_core.replication.keys import KeyRequest, StatesToSave, send_keys, states_to_save
from regworkers_core.replication.second_look import SecondLook

log = structlog.get_logger(__name__)
# A failed entry is corrected minutes later, and mostly saved in another run.
_REFRESH_SECONDS = 30.0
# More open dead letters of a queue are an incident, in which a call per batch is worth its cost.
_MOST_KNOWN = 10_000
_CAMPAIGN_MEMORY_SECONDS = 60.0


class DemandReads(Protocol):
    def get(self, keys: Sequence[EntryKey]) -> dict[EntryKey, dict[str, Any]]: ...
    def clear_flags(self, entries: Sequence[Entry], replicated_at: str) -> Cleared: ...


class PausedCampaigns(Protocol):
    def paused(self) -> frozenset[str]: ...
    def park(self, campaign_id: str, items: Sequence[ReplicationItem]) -> bool: ...


class KnownCampaigns(Protocol):
    def known(self, ids: set[str]) -> set[str]: ...


_COUNTED_AS = {Effect.REPEATED: Effect.UNCHANGED, Effect.OVERTAKEN: Effect.STALE}
# After these, the replica holds the state of the source as it was read.
_IN_STEP = (Effect.APPLIED, Effect.HEALED, Effect.UNCHANGED, Effect.REPEATED)


def _is_still(entry: Entry | None, item: Mapping[str, Any] | None) -> bool:
    """Whether the source still holds this state (None: no entry). Types count, so texts are compared; if only the order
    of names differs, the key is read or sent again without need.
    """
    if item is None or entry is None:
        return item is None and entry is None
    try:
        now = Entry.parse(entry.key, item)
    except PermanentFailure:
        return False
    return now.order == entry.order and repr(now.fields) == repr(entry.fields)


def _not_confirmed(failure: SendFailure) -> Failure:
    """A permanent refusal concerns the events of that message, each of which is then sent alone."""
    if failure.permanent:
        return ItemFailure(f"the event was refused: {failure.error}")
    return TransientFailure(QUEUE_SERVICE, f"event not confirmed: {failure.error}")


@dataclass(eq=False)
class Saver:
    """The save steps, and the drain's `Handler[ReplicationItem]` over them; shared by all its threads."""

    kinds = (MessageType.REPLICATE,)
    seal = None

    table: DemandReads
    replica: Replica
    campaigns: KnownCampaigns
    # The queue of its own messages.
    replication: Queue
    events: EventQueue
    _: KW_ONLY
    dead_letters: OpenDeadLetters | None = None
    second_look: SecondLook | None = None
    # None: no campaign is paused.
    parking: PausedCampaigns | None = None
    # It is stored with each state.
    run_id: str
    clock: Callable[[], float] = scheduling.now
    on_step: OnStep = no_step
    # What becomes of each entry is logged with its correlation id.
    traced: bool = True

    def __post_init__(self) -> None:
        self._campaign_memory: dict[str, tuple[bool, float]] = {}

    def parse(self, raw: object, kind: MessageType) -> ReplicationItem:
        return ReplicationItem.parse(raw)

    def key(self, item: ReplicationItem) -> EntryKey:
        return item.key

    def subject(self, item: ReplicationItem) -> ItemSubject:
        return ItemSubject.entry(item.key, item.order)

    def handle(self, requested: Sequence[Requested[ReplicationItem]]) -> Handled:
        """Save each key once, however many messages name it; park those of campaigns that are paused. Raises as
        `save`.
        """
        wanted: dict[EntryKey, KeyRequest] = {}
        paused = self._parked(requested)
        for each in requested:
            if each.item.key in paused.outcomes:
                continue
            want = wanted.setdefault(each.item.key, KeyRequest(each.message_id, each.correlation_id))
            want.add(each.item, each.message_id)
        saved = self.save(wanted)
        saved.add(paused)
        return saved

    def _parked(self, requested: Sequence[Requested[ReplicationItem]]) -> Handled:
        """What became of the keys of paused campaigns. Where the pause has ended meanwhile, they come again."""
        parked = Handled()
        paused = self.parking.paused() if self.parking is not None else ()
        items: dict[str, list[ReplicationItem]] = {}
        for each in requested:
            if each.item.key.campaign_id in paused:
                items.setdefault(each.item.key.campaign_id, []).append(each.item)
        for campaign_id, some in items.items():
            keys = {item.key for item in some}
            if self.parking is not None and self.parking.park(campaign_id, some):
                parked.outcomes.update(dict.fromkeys(keys, "dropped"))
                parked.counts["parked"] += len(keys)
            else:
                again = TransientFailure("mongo", "the campaign was resumed while its keys were parked")
                parked.outcomes.update(dict.fromkeys(keys, again))
        return parked

    def save(self, wanted: Mapping[EntryKey, KeyRequest]) -> Handled:
        """Save the current state of each key. Blocks for up to eight calls. Raises TransientFailure when a dependency
        failed for the batch as a whole.
        """
        saved = Handled()
        states = self._read(wanted, saved)
        entries, writes = states.entries, states.writes
        self._count_unknown_campaigns(entries, saved)
        if personal := sum(is_personal(key.entry_id) for key in entries):
            saved.counts["personal_id"] += personal
            log.warning("entry ids are mail addresses or phone numbers", count=personal)
        at = iso(self.clock())
        effects = self.replica.apply(writes, at=at, run_id=self.run_id, live=saved.live) if writes else {}
        self.on_step("save.after_write")
        for write in writes:
            self._note_outcome(write, effects[write.key], entries.get(write.key), saved)
        healed = self._read_again(effects, entries, saved)
        self._remove_again(writes, saved)
        self._publish(writes, effects, entries, wanted, at, saved)
        self.on_step("save.after_event")
        self._clear(entries, effects, healed, at, saved)
        self.on_step("save.after_clear")
        self._close_dead_letters(writes, effects, saved)
        if self.second_look is not None:
            wrote = (Effect.APPLIED, Effect.HEALED)
            self.second_look.note([each for each in writes if effects[each.key] in wrote])
            saved.counts.update(self.second_look.counts())
        for key, outcome in saved.outcomes.items():
            if isinstance(outcome, TransientFailure):
                # This entry alone is repeated, and not the others of its message.
                saved.outcomes[key] = LeftOver.of(outcome)
        if self.traced and wants_entries():
            self._log(wanted, entries, saved)
        return saved

    @staticmethod
    def _log(
        wanted: Mapping[EntryKey, KeyRequest], entries: Mapping[EntryKey, Entry], saved: Handled
    ) -> None:
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

    def _read(self, wanted: Mapping[EntryKey, KeyRequest], saved: Handled) -> StatesToSave:
        states = states_to_save(wanted, self.table.get(list(wanted)) if wanted else {})
        for key, (subject, failure) in states.refused.items():
            # The dead letter holds for the state of the table, whatever order the message names.
            saved.outcomes[key], saved.subjects[key] = failure, subject
        # The removal has a record of its own on the stream.
        saved.outcomes.update(dict.fromkeys(states.gone, "gone"))
        return states

    def _note_outcome(
        self, write: Write, effect: Effect | Failure, entry: Entry | None, saved: Handled
    ) -> None:
        if isinstance(effect, Failure):
            saved.outcomes[write.key] = effect
        elif effect in (Effect.APPLIED, Effect.HEALED):
            saved.outcomes[write.key] = "applied" if write.fields is not None else "removed"
            saved.counts["healed"] += effect is Effect.HEALED
            updated_at = seconds(write.order.updated_at)
            # A repair or a backfill saves old states whose flag was cleared long ago: that is not lag.
            fresh = effect is Effect.APPLIED and entry is not None and entry.needs_replication
            if fresh and updated_at is not None:
                lag = self.clock() - updated_at
                saved.lags.append(lag)
                keep_longest(saved.slowest, {write.key.campaign_id: lag})
        else:
            saved.outcomes[write.key] = _COUNTED_AS.get(effect, effect).value

    def _remove_again(self, writes: Sequence[Write], saved: Handled) -> None:
        """A removal behind what is stored, of an entry that the source no longer has: the life that was removed had an
        earlier `createdAt` than the one before it. No other removal may come for what is stored, so one is sent with
        its order. If the entry is there again by then, it is saved.
        """
        stale = [
            each.key
            for each in writes
            if each.fields is None and saved.outcomes[each.key] == Effect.STALE.value
        ]
        if not stale:
            return
        try:
            live = {key: seen for key, seen in self.replica.get(stale).items() if seen.deleted_at is None}
            if live:
                items = [ReplicationItem(key, Op.REMOVE, seen.order) for key, seen in live.items()]
                send_keys(self.replication, items)
        except TransientFailure as failure:
            saved.outcomes.update(dict.fromkeys(stale, failure))
        else:
            saved.counts["removed_again"] += len(live)

    def _read_again(
        self, effects: Mapping[EntryKey, Effect | Failure], entries: Mapping[EntryKey, Entry], saved: Handled
    ) -> list[Entry]:
        """Healed entries whose source has changed since it was read, or cannot be read. An order alone does not show
        which of two contents is newer, so another drain may have saved the newer one before this write.

        A state that was overtaken, or an entry that was gone, is not done either if its source has changed: a drain
        that received the same message may have saved the next state and died before the event, which only this message
        still brings. It stays, and is read again with its next receive.
        """
        again = [key for key, effect in effects.items() if effect in (Effect.HEALED, Effect.OVERTAKEN)]
        again += [key for key, outcome in saved.outcomes.items() if outcome == "gone"]
        if not again:
            return []
        changed = set(again)
        try:
            now = self.table.get(again)
            changed = {key for key in again if not _is_still(entries.get(key), now.get(key))}
        except TransientFailure as failure:
            log.warning("states not read again", dependency=failure.dependency, error=failure.error)
        healed = [entry for key, entry in entries.items() if effects[key] is Effect.HEALED and key in changed]
        for key in changed.difference(entry.key for entry in healed):
            saved.outcomes[key] = TransientFailure("dynamodb", "the entry changed while it was saved")
        return healed

    def _publish(
        self,
        writes: Sequence[Write],
        effects: Mapping[EntryKey, Effect | Failure],
        entries: Mapping[EntryKey, Entry],
        wanted: Mapping[EntryKey, KeyRequest],
        at: str,
        saved: Handled,
    ) -> None:
        """Send one event per saved state: if this attempt wrote it, or if an earlier attempt did and ended before it
        cleared the flag (for an entry without a flag: before it deleted this message). The flag of an entry whose event
        is not confirmed is not cleared.
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
        for index, failure in self.events.send(events).items():
            saved.outcomes[due[index]] = _not_confirmed(failure)
        saved.counts["events"] += len(events)

    def _clear(
        self,
        entries: Mapping[EntryKey, Entry],
        effects: Mapping[EntryKey, Effect | Failure],
        healed: Sequence[Entry],
        at: str,
        saved: Handled,
    ) -> None:
        """Clear the flag where the replica now holds the state as read. A key that changed since is queued again, and
        so are the `healed` ones.
        """
        left_alone = {entry.key for entry in healed}
        clearable = [
            entry
            for key, entry in entries.items()
            if entry.needs_replication
            and effects[key] in _IN_STEP
            and key not in left_alone
            and not isinstance(saved.outcomes[key], Failure)
        ]
        changed, failed = self.table.clear_flags(clearable, at) if clearable else ([], [])
        for entry, failure in failed:
            saved.outcomes[entry.key] = failure
        saved.counts["cleared"] += len(clearable) - len(changed) - len(failed)
        again = [*healed, *changed]
        saved.counts["changed_meanwhile"] += len(again)
        if again:
            self._send_again(again, saved)

    def _send_again(self, entries: Sequence[Entry], saved: Handled) -> None:
        """Send them as removals of the state that was just written: if the entry is gone by now and its own removal was
        saved before this write, nothing else would replace it by a tombstone.
        """
        try:
            send_keys(
                self.replication, [ReplicationItem(entry.key, Op.REMOVE, entry.order) for entry in entries]
            )
        except TransientFailure as failure:
            for entry in entries:
                if not isinstance(saved.outcomes[entry.key], Failure):
                    saved.outcomes[entry.key] = failure

    def _close_dead_letters(
        self, writes: Sequence[Write], effects: Mapping[EntryKey, Effect | Failure], saved: Handled
    ) -> None:
        """The state that could not be saved before is saved now, or a newer one is."""
        if self.dead_letters is None:
            return
        failed = [key for key, outcome in saved.outcomes.items() if isinstance(outcome, Failure)]
        stored = {
            write.key: write.order
            for write in writes
            if effects[write.key] is not Effect.RESURRECTED
            and not isinstance(saved.outcomes[write.key], Failure)
        }
        self.dead_letters.expect(failed)
        saved.counts["letters_closed"] += self.dead_letters.close(stored)

    def _count_unknown_campaigns(self, entries: Mapping[EntryKey, Entry], saved: Handled) -> None:
        """Entries of an unknown campaign are saved all the same, and counted."""
        now = self.clock()
        ids = {key.campaign_id for key in entries}
        ask = {id_ for id_ in ids if self._campaign_memory.get(id_, (False, 0.0))[1] <= now}
        if ask:
            known = self.campaigns.known(ask)
            expires = now + _CAMPAIGN_MEMORY_SECONDS
            self._campaign_memory.update((id_, (id_ in known, expires)) for id_ in ask)
        unknown = {id_ for id_ in ids if not self._campaign_memory[id_][0]}
        saved.counts["unknown_campaign"] += sum(key.campaign_id in unknown for key in entries)


class DeadLetterRecords(Protocol):
    def open_entries(self, queue: str, limit: int) -> set[EntryKey] | None: ...
    def resolve(self, queue: str, saved: Mapping[EntryKey, Order], *, at: str) -> int: ...


class OpenDeadLetters:
    """The entries with an open dead letter of `queue`, as known up to half a minute ago. Shared by all threads of a
    drain; `clock` is in epoch seconds.
    """

    def __init__(
        self, records: DeadLetterRecords, queue: str, *, clock: Callable[[], float] = scheduling.now
    ) -> None:
        self._records, self._queue, self._clock = records, queue, clock
        self._lock = scheduling.lock()
        # None: too many to know.
        self._known: set[EntryKey] | None = set()
        self._refresh_at = 0.0

    def expect(self, failed: Iterable[EntryKey]) -> None:
        """These entries failed just now, so they may soon have a dead letter."""
        with self._lock:
            if self._known is not None:
                self._known.update(failed)

    def close(self, saved: Mapping[EntryKey, Order]) -> int:
        """Close the dead letters of saved entries under their order or a smaller one; returns how many.

        Never raises TransientFailure: the entries are saved, and a later save closes what stays open.
        """
        try:
            some = self._with_dead_letters(saved)
            return self._records.resolve(self._queue, some, at=iso(self._clock())) if some else 0
        except TransientFailure as failure:
            log.warning("dead letters not closed", dependency=failure.dependency, error=failure.error)
            return 0

    def _with_dead_letters(self, saved: Mapping[EntryKey, Order]) -> Mapping[EntryKey, Order]:
        with self._lock:
            if self._clock() >= self._refresh_at:
                self._known = self._records.open_entries(self._queue, _MOST_KNOWN)
                self._refresh_at = self._clock() + _REFRESH_SECONDS
            if self._known is None:
                return saved
            return {key: order for key, order in saved.items() if key in self._known}
