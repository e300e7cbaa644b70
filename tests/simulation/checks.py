"""The invariants: what must never be seen while a play runs, and what must be true at its end.

Everything is read from the servers' own memory; orders are compared as the texts and numbers that writers gave.
"""

from __future__ import annotations

import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from regworkers_core.domain.keys import CAMPAIGN_PREFIX, ENTRY_PREFIX
from regworkers_core.engine.drain_report import OUTCOMES
from tests.simulation.platform import Order, fields_of, order_of
from tests.simulation.scheduler import Process

if TYPE_CHECKING:
    from tests.simulation.play import Play
    from tests.simulation.world import World

REMOVED = "is removed, and live in the replica"
# Of a document beside the entry's own fields.
_OF_THE_REPLICA = ("_id", "_replication", "_identity", "_registration", "_toRegister", "erasedAt")


def traceback_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def stored_order(document: Mapping[str, Any]) -> Order:
    return order_of(document.get("_replication", {}))


class Watch:
    """Looks at the stores after each write. `repairing`: an operator lets the source win."""

    def __init__(self, world: World, tell: Callable[[str], None]) -> None:
        self._world, self._tell = world, tell
        self.repairing = False
        self.broken: list[str] = []
        # Every state that was stored: entry, order, whether it was a tombstone.
        self.saved: set[tuple[str, Order, bool]] = set()
        self._entries: dict[str, tuple[Order, bool]] = {}
        self._positions: dict[tuple[str, str, str], str] = {}
        self._tokens: dict[tuple[str, str], int] = {}
        self._owners: dict[tuple[str, str], str] = {}
        for operation in ("bulk_write", "update_one", "delete_one"):
            world.monitors[("mongo", operation)] = [self._replica]
        for operation in ("PutItem", "UpdateItem", "DeleteItem"):
            world.monitors[("dynamodb", operation)] = [self._leases]
        world.monitors[("dynamodb", "BatchExecuteStatement")] = [self._flags]

    def is_last(self, id_: str, order: Order, removed: bool) -> bool:
        """Whether this is what is stored now."""
        return self._entries.get(id_) == (order, removed)

    def look_again(self) -> None:
        """An election has undone what no majority had acknowledged."""
        self._entries = {
            each["_id"]: (stored_order(each), "deletedAt" in each)
            for each in self._world.documents("entries")
        }

    def _broke(self, text: str) -> None:
        self._tell(f"BROKEN: {text}")
        self.broken.append(text)

    def _replica(self, process: Process, request: Any) -> None:
        found: dict[str, tuple[Order, bool]] = {}
        for document in self._world.documents("entries"):
            id_, order, removed = document["_id"], stored_order(document), "deletedAt" in document
            found[id_] = now = (order, removed)
            before = self._entries.get(id_)
            if before == now:
                continue
            self.saved.add((id_, order, removed))
            if before is None or self.repairing:
                continue
            if order < before[0]:
                self._broke(f"{process.name} let an older state of {id_} win: {order} over {before[0]}")
            elif order == before[0] and before[1] and not removed:
                self._broke(f"{process.name} undid the tombstone of {id_} at its own order")
        gone = self._entries.keys() - found.keys()
        if gone and not self.repairing:
            self._broke(f"{process.name} deleted the documents of {', '.join(sorted(gone))}")
        self._entries = found

    def _flags(self, process: Process, request: Any) -> None:
        """No flag is cleared of a state that the replica has never held."""
        items = self._world.items()
        for statement in request["Statements"]:
            pk, sk = (each["S"] for each in statement["Parameters"][2:4])
            id_ = f"{pk.removeprefix(CAMPAIGN_PREFIX)}:{sk.removeprefix(ENTRY_PREFIX)}"
            item = items.get(id_, {})
            cleared = item.get("needsReplication") is False
            if cleared and (id_, order_of(item), False) not in self.saved:
                self._broke(f"{process.name} cleared the flag of a state of {id_} that was never saved")

    def _leases(self, process: Process, request: Any) -> None:
        if not request["TableName"].endswith("worker-leases"):
            return
        item = request.get("Item") or request["Key"]
        key = item["PK"]["S"], item["SK"]["S"]
        row = self._world.lease(key)
        if row is None:
            # What was written under it is refused from now on. A listing that shows its stream again puts a new row.
            self._tokens.pop(key, None)
            self._positions = {each: at for each, at in self._positions.items() if each[:2] != key}
            return
        if (role := row.get("state", {}).get("M", {}).get("role")) is not None:
            self._world.reached[f"resident {role['S']}"] += 1
        token = int(row.get("token", {}).get("N", "0"))
        owner = row.get("owner", {}).get("S", "")
        if token < self._tokens.get(key, 0):
            self._broke(f"{process.name} set the token of {key} back")
        if token > self._tokens.get(key, 0) and self._owners.get(key):
            self._world.reached["taken over"] += 1
        self._tokens[key], self._owners[key] = token, owner
        position, scope = row.get("position", {}).get("S", ""), row.get("scope", {}).get("S", "")
        if position < self._positions.get((*key, scope), ""):
            self._broke(f"{process.name} set the checkpoint of {key} back")
        self._positions[(*key, scope)] = position


# Between the stores


def differences(play: Play) -> list[str]:
    """What is not yet as it should be, cheapest first."""
    found: list[str] = []
    world, names = play.world, play.platform.names
    for name in (names.replication_queue, names.analytics_queue):
        waiting = len(world.servers.queues.queues[name].messages)
        if waiting:
            found.append(f"{waiting} messages on {name}")
    documents = {each["_id"]: each for each in world.documents("entries")}
    items = world.items()
    refused = {
        f"{each.get('campaignId')}:{each.get('entryId')}"
        for each in world.documents("dead_letters")
        if each["status"] == "open"
    }
    for id_, item in items.items():
        if "email" not in item:
            if id_ not in refused and id_ not in play.to_correct:
                found.append(f"{id_} is refused, and has no open dead letter")
            continue
        # A trimmed stream, or a restored table, leaves the flag of an entry that a repair finds in step.
        if item.get("needsReplication") is True and not world.lossy:
            found.append(f"{id_} is flagged")
        document = documents.get(id_)
        if document is None or "deletedAt" in document:
            found.append(f"{id_} is missing in the replica")
        elif _content(document) != fields_of(item):
            found.append(f"{id_} differs: {_content(document)} instead of {fields_of(item)}")
        elif stored_order(document) != order_of(item):
            found.append(f"{id_} has the order {stored_order(document)} instead of {order_of(item)}")
    for id_, document in documents.items():
        if id_ not in items and "deletedAt" not in document:
            found.append(f"{id_} {REMOVED}")
    return found + list(_tombstones(play))


def _content(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in _OF_THE_REPLICA}


def at_the_end(play: Play) -> list[str]:
    """What does not hold after everything has ended."""
    found: list[str] = []
    for check in (_numbers, _published, _dead_letters):
        found.extend(check(play))
    return found


def _numbers(play: Play) -> Iterator[str]:
    """Every report adds up, and the drain log has the numbers of those drains."""
    logged: dict[str, Counter[str]] = defaultdict(Counter)
    for each in play.world.documents("drain_log"):
        logged[each["runId"]].update(each["counts"])
    for name, report in play.reports:
        if not report.adds_up:
            yield f"the numbers of {name} do not add up: {report.as_dict()}"
        for outcome in ("received", *OUTCOMES):
            # The last minute is written at the end, for which a log that cannot be written is not waited.
            if logged[name][outcome] > report.counts[outcome]:
                yield f"the drain log of {name} counts {logged[name][outcome]} as {outcome}: {report.as_dict()}"


def _events(play: Play) -> Iterator[dict[str, Any]]:
    for value in play.world.records():
        yield orjson.loads(value)


def _published(play: Play) -> Iterator[str]:
    """An event for what is stored of each entry, none for a state that the table never had, one id for each."""
    platform, events = play.platform, dict[tuple[str, Order, bool], set[str]]()
    for event in _events(play):
        if event["type"] not in ("entry.replicated", "entry.removed"):
            continue
        data, removed = event["data"], event["type"] == "entry.removed"
        id_, order = f"{data['campaignId']}:{data['entryId']}", order_of(data)
        events.setdefault((id_, order, removed), set()).add(event["id"])
        known = platform.live.get(id_, set())
        # An entry that changed while it was saved is requested again as a removal of the state that was saved, which
        # holds if it is gone by then.
        if order not in known and not (removed and order in platform.gone.get(id_, ())):
            yield f"an event says that {id_} was {event['type']} at {order}, which it never was"
    for what, ids in events.items():
        if len(ids) != 1:
            yield f"the events of {what} have {len(ids)} ids"
    # A worker may die between the write and the event, and the entry change before the repeat reads it: then the next
    # state has an event, and this one does not.
    items = play.world.items()
    for id_, order, removed in sorted(play.watch.saved - events.keys()):
        # It has none if that state is refused; a restore may bring such a state back, for the operator to correct.
        refused = any(each > order for each in platform.invalid.get(id_, ())) or id_ in play.to_correct
        # What was lost with the stream is owed, and the flag shows it.
        owed = play.world.lossy and items.get(id_, {}).get("needsReplication") is True
        if play.watch.is_last(id_, order, removed) and not (refused or owed):
            yield f"{id_} was saved {'as removed ' if removed else ''}at {order} without an event"
        else:
            play.outcome.reached["overtaken before its event"] += 1


def _dead_letters(play: Play) -> Iterator[str]:
    """Every refused state and message has one, and nothing else does."""
    names, world = play.platform.names, play.world
    for queue, refused in (
        (names.replication_queue, play.platform.refused_messages),
        (names.analytics_queue, play.platform.refused_events),
    ):
        reasons: Counter[str] = Counter()
        for message in world.servers.queues.queues[names.dead_letter_queue(queue)].messages.values():
            reason = message.attributes.get("reason", {}).get("StringValue", "none")
            reasons[reason] += 1
            play.outcome.reached[f"dead letter {reason}"] += 1
        for reason in reasons.keys() - {"INVALID_BODY", "INVALID_ENTRY", "FORGED"}:
            yield f"{reasons[reason]} dead letters of {queue} with reason {reason}"
        if reasons["INVALID_BODY" if queue == names.replication_queue else "FORGED"] < refused:
            yield f"a refused message of {queue} has no dead letter: {dict(reasons)}"


def _tombstones(play: Play) -> Iterator[str]:
    """A removed entry whose life was saved has the tombstone of that state."""
    items = play.world.items()
    for document in play.world.documents("entries"):
        id_ = document["_id"]
        if "deletedAt" in document and id_ not in items:
            order = stored_order(document)
            if order not in play.platform.gone.get(id_, ()) and not play.watch.repairing:
                yield f"the tombstone of {id_} has the order {order}, at which it was never removed"
            if left := document.keys() - {*_OF_THE_REPLICA, "campaignId", "entryId", "deletedAt"}:
                yield f"the tombstone of {id_} still holds {', '.join(sorted(left))}"
