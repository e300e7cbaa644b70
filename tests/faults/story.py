"""Entries with a history, and the judgement whether all of it arrived: nothing lost, nothing doubled."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from regworkers_core.adapters.mongo.entry_documents import same_content
from regworkers_core.domain.entry import Entry, lenient_order
from regworkers_core.domain.events import EventType, event_id
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import Op, ReplicationItem
from regworkers_core.replication.keys import send_keys
from regworkers_core.runtime import Runtime
from tests.support import entries
from tests.support.drains import taken


@dataclass(slots=True)
class Verdict:
    """Findings in words, without which a fault left no trace. `repeats` are events that came again with the
    id they had before: consumers drop those.
    """

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    repeats: int = 0

    @property
    def clean(self) -> bool:
        return not self.lost and not self.doubled


class Story:
    """Writes to the demand table and remembers every state that it wrote."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.live: dict[EntryKey, dict[str, Any]] = {}
        self.removed: dict[EntryKey, dict[str, Any]] = {}
        # Written without the flag, so no flag is cleared.
        self._quiet: set[EntryKey] = set()
        # How many entries have a key that replication refuses.
        self._refused = 0
        # The event of every state that ever was, by id; and of those states whose event must come: the last
        # of each entry, and those that were saved before the next one came.
        self._states: dict[str, str] = {}
        self._last: dict[EntryKey, str] = {}
        self._saved: set[str] = set()
        self._events: Counter[str] = Counter()

    def put(self, name: str) -> None:
        """A new entry, or the next version of one."""
        key = entries.key(name)
        before = self.live.get(key)
        changes = (
            {} if before is None else {"version": before["version"] + 1, "createdAt": before["createdAt"]}
        )
        self.live[key] = entries.put(self.runtime, key, **changes)
        self._owe(key, self.live[key], EventType.ENTRY_REPLICATED)

    def put_quietly(self, name: str) -> None:
        """A new entry without the flag, whose key is sent directly: a backfill, a repair, an operator."""
        key = entries.key(name)
        self.live[key] = entries.put(self.runtime, key, needsReplication=False)
        self._quiet.add(key)
        queue = self.runtime.queue(self.runtime.names.replication_queue)
        send_keys(queue, [ReplicationItem(key, Op.UPSERT)])
        self._owe(key, self.live[key], EventType.ENTRY_REPLICATED)

    def put_refused(self, name: str) -> None:
        """An entry whose key is longer than replication takes: a dead letter of the enqueue drain, without history."""
        entries.put(self.runtime, entries.key(name * 600), email=None)
        self._refused += 1

    def rewrite(self, name: str) -> None:
        """Other content without a new version, as a hasty writer has it."""
        key = entries.key(name)
        before = self.live[key]
        self.live[key] = entries.put(self.runtime, key, **{**before, "firstName": "rewritten"})

    def remove(self, name: str) -> None:
        key = entries.key(name)
        entries.remove(self.runtime, key)
        self.removed[key] = self.live.pop(key)
        self._owe(key, self.removed[key], EventType.ENTRY_REMOVED)

    def saved(self) -> None:
        """All that was written so far is in the replica."""
        self._saved.update(self._last.values())

    def _owe(self, key: EntryKey, item: dict[str, Any], kind: EventType) -> None:
        order = lenient_order(item)
        self._last[key] = event_id(key, order, kind)
        self._states[self._last[key]] = f"{key.document_id} {kind} version {order.version}"

    def judge(self) -> Verdict:
        """Compare source, replica, events, queues and dead letters; takes the events off their queue."""
        verdict = Verdict()
        runtime = self.runtime
        keys = [*self.live, *self.removed]
        stored = runtime.replica.get(keys)
        source = runtime.demand_table.get(list(self.live))
        for key in self.live:
            entry, copy = Entry.parse(key, source[key]), stored.get(key)
            if copy is None or copy.order != entry.order or not same_content(entry.fields, copy.fields):
                verdict.lost.append(f"{key.document_id}: the replica is behind")
            cleared = key in self._quiet or source[key].get("replicatedVersion") == entry.order.version
            if entry.needs_replication or not cleared:
                verdict.lost.append(f"{key.document_id}: its flag is not cleared")
        for key, image in self.removed.items():
            copy = stored.get(key)
            if copy is None or copy.deleted_at is None or copy.order != lenient_order(image):
                verdict.lost.append(f"{key.document_id}: no tombstone")
        documents = Counter(each["_id"] for each in runtime.database["entries"].find())
        twice = documents - Counter(key.document_id for key in keys)
        verdict.doubled += [f"{name}: {number} documents too many" for name, number in twice.items()]
        self._judge_events(verdict)
        self._judge_queues(verdict)
        return verdict

    def _judge_events(self, verdict: Verdict) -> None:
        self._events.update(event["id"] for event in take_events(self.runtime))
        seen = self._events
        owed = self._saved | set(self._last.values())
        verdict.lost += [f"{self._states[each]}: no event" for each in owed if each not in seen]
        strange = set(seen) - set(self._states)
        verdict.doubled += [
            f"an event of a state that never was ({number})" for number in range(len(strange))
        ]
        verdict.repeats = seen.total() - len(seen)

    def _judge_queues(self, verdict: Verdict) -> None:
        names = self.runtime.names
        waiting = self.runtime.queue(names.replication_queue).depth().total
        if waiting:
            verdict.lost.append(f"{waiting} messages left on the queue")
        for name in names.queues:
            due = self._refused if name == names.replication_queue else 0
            dead_letters = names.dead_letter_queue(name)
            dead = self.runtime.queue(dead_letters).depth().total
            if dead < due or (dead and not due):
                verdict.lost.append(f"{dead} dead letters on {dead_letters}, due are {due}")
            # A drain that died between such a dead_letter and its checkpoint sends it again.
            verdict.repeats += max(0, dead - due) if due else 0
        if recorded := len(list(self.runtime.database["dead_letters"].find())):
            verdict.lost.append(f"{recorded} dead letters recorded")


def take_events(runtime: Runtime) -> list[dict[str, Any]]:
    """All events on the analytics queue, taken off it."""
    return taken(runtime, runtime.names.analytics_queue)
