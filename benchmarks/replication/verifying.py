"""Peak memory and speed of a comparison: every segment of one campaign, both sides generated while they are read."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from benchmarks.figures import peak_mib
from benchmarks.replication.fakes import FakeLeases
from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.adapters.aws.demand_table import DemandTable
from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.adapters.mongo.client import classify_mongo
from regworkers_core.adapters.mongo.replica import Replica
from regworkers_core.domain.entry import Entry, Order
from regworkers_core.domain.keys import ENTRY_PREFIX, EntryKey
from regworkers_core.engine.dependency import Dependency, RetryPolicy
from regworkers_core.observability.logs import configure_logging
from regworkers_core.replication.reconcile.classify import Sides
from regworkers_core.replication.reconcile.reconciliation import Comparing, Reconciliation
from regworkers_core.replication.reconcile.segments import Segments
from regworkers_core.settings import load_settings

_CAMPAIGN = "aurora-world-tour"
_AT = "2026-01-01T00:00:00.000Z"
# What DynamoDB sends in one page of 1 MB, at 700 bytes an entry.
_PAGE = 1500
# One entry of each of these is planted among the others.
_PLANTED = ("missing", "stale", "orphaned", "resurrected", "ahead")


def measure(entries: int, say: Callable[[str], None]) -> dict[str, Any]:
    """In a process of its own, for its memory."""
    command = [sys.executable, "-m", "benchmarks.replication.verifying", str(entries)]
    found: dict[str, Any] = orjson.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    say(f"{entries:,} compared: {found['seconds']:.0f} s, {found['peak']:.0f} MiB")
    return found


@dataclass(frozen=True, slots=True)
class Verified:
    """MiB before and at the peak, seconds, read units, and the differences that were found."""

    entries: int
    before: float
    peak: float
    seconds: float
    units: float
    segments: int
    found: Mapping[str, int]


def compare(entries: int) -> Verified:
    """In this process. Raises RuntimeError unless every planted difference is found by its class."""
    settings = load_settings().replication
    before, began = peak_mib(), time.monotonic()
    table = _Table(entries)
    leases = FakeLeases()
    segments = Segments(leases, lease_seconds=30)
    sides = Sides(
        DemandTable(table, Dependency("dynamodb", classify_aws("dynamodb"), policy=RetryPolicy()), "fake"),
        Replica(_Documents(entries), Dependency("mongo", classify_mongo, policy=RetryPolicy())),  # type: ignore[arg-type]
        _NoDeadLetters(),
    )
    flow = Reconciliation(
        sides,
        None,  # type: ignore[arg-type]
        settings,
        segments=segments,
        superseded=None,  # type: ignore[arg-type]
        visibility_seconds=60,
        # What is planted is certain at the second look, or waits for the objective of virtual time.
        sleep=lambda _seconds: None,
    )
    result = flow.run(Comparing(cycle=True))
    found = {kind.value: number for kind, number in result.counts.items() if number}
    if found != dict.fromkeys(_PLANTED, 1) or not result.adds_up:
        raise RuntimeError(f"planted one of each of {_PLANTED}, found {found}")
    seconds = time.monotonic() - began
    number = len(segments.listed())
    peak = round(peak_mib(), 1)
    return Verified(entries, round(before, 1), peak, round(seconds, 1), table.units, number, found)


def _planted(number: int, entries: int) -> str:
    """The class of the entry of this number, empty for all others."""
    apart = entries // (len(_PLANTED) + 1)
    index, left = divmod(number, apart)
    return _PLANTED[index - 1] if not left and 1 <= index <= len(_PLANTED) else ""


def _key(number: int) -> EntryKey:
    return EntryKey(_CAMPAIGN, f"{number:012d}")


def _own(number: int) -> dict[str, str]:
    """The fields in which entries differ."""
    id_ = _key(number).entry_id
    return {"entryId": id_, "ref": f"r{number}", "email": f"{id_}@example.com"}


_ITEM = {
    "PK": _key(0).pk,
    "SK": _key(0).sk,
    "entityType": "ENTRY",
    "campaignId": _CAMPAIGN,
    **_own(0),
    "firstName": "Zoë",
    "lastName": "Łukasz",
    "markets": ["berlin", "paris", "warsaw"],
    "attributes": {"source": "web", "newsletter": True},
    "createdAt": _AT,
    "updatedAt": _AT,
    "version": 2,
}
_ATTRIBUTES = attributes(_ITEM)
_SAVED = dict(Entry.parse(_key(0), _ITEM).fields)


class _Table:
    """botocore's client of a table in which the partition holds `entries` entries."""

    def __init__(self, entries: int) -> None:
        self._entries, self.units = entries, 0.0

    def scan(self, **_: Any) -> dict[str, Any]:
        return {"Items": [{"PK": {"S": _key(0).pk}, "SK": {"S": _key(0).sk}}]}

    def query(
        self, ExpressionAttributeValues: Any, ExclusiveStartKey: Any = None, **_: Any
    ) -> dict[str, Any]:
        first = _number(ExpressionAttributeValues[":first"]["S"].removeprefix(ENTRY_PREFIX))
        if ExclusiveStartKey:
            first = _number(ExclusiveStartKey["SK"]["S"].removeprefix(ENTRY_PREFIX)) + 1
        last = ExpressionAttributeValues[":last"]["S"]
        end = _number(last.removeprefix(ENTRY_PREFIX)) + 1 if last.startswith(ENTRY_PREFIX) else self._entries
        numbers = range(first, min(first + _PAGE, end))
        items = [self._item(number) for number in numbers if _planted(number, self._entries) != "orphaned"]
        # As DynamoDB counts: half a unit for 4 KB.
        units = 0.5 * -(-len(numbers) * 700 // 4096)
        self.units += units
        answer: dict[str, Any] = {"Items": items, "ConsumedCapacity": {"CapacityUnits": units}}
        if numbers and numbers[-1] + 1 < end:
            answer["LastEvaluatedKey"] = {"PK": {"S": _CAMPAIGN}, "SK": {"S": _key(numbers[-1]).sk}}
        return answer

    def batch_get_item(self, RequestItems: Any) -> dict[str, Any]:
        ((name, request),) = RequestItems.items()
        numbers = [_number(key["SK"]["S"].removeprefix(ENTRY_PREFIX)) for key in request["Keys"]]
        found = [self._item(each) for each in numbers if _planted(each, self._entries) != "orphaned"]
        return {"Responses": {name: found}}

    def _item(self, number: int) -> dict[str, Any]:
        own = {"SK": _key(number).sk, **_own(number)}
        return {**_ATTRIBUTES, **{name: {"S": text} for name, text in own.items()}}


class _Documents:
    """pymongo's collection with the same entries, except for those that are planted."""

    def __init__(self, entries: int) -> None:
        self._entries = entries

    def distinct(self, _field: str) -> list[str]:
        return [_CAMPAIGN]

    def find(
        self, query: Any, _fields: Any = None, *, sort: Any = None, limit: int = 0
    ) -> Iterator[dict[str, Any]]:
        ids = query["_id"]
        if "$in" in ids:
            numbers: Sequence[int] = [_number(id_.partition(":")[2]) for id_ in ids["$in"]]
        else:
            first = (
                _number(ids["$gt"].partition(":")[2]) + 1
                if "$gt" in ids
                else _number(ids["$gte"].partition(":")[2])
            )
            _, colon, last = ids["$lt"].partition(":")
            numbers = range(first, _number(last) if colon else self._entries)
        there = (number for number in numbers if _planted(number, self._entries) != "missing")
        return (self._document(number) for number in islice(there, limit or None))

    def _document(self, number: int) -> dict[str, Any]:
        key, planted = _key(number), _planted(number, self._entries)
        fields = {**_SAVED, **_own(number), "markets": list(_SAVED["markets"])}
        version = {"ahead": 3, "stale": 1}.get(planted, 2)
        custody = {"_replication": Order(_AT, version, _AT).as_fields()}
        removed = {"deletedAt": _AT} if planted == "resurrected" else {}
        return {"_id": key.document_id, **fields, **custody, **removed}


class _NoDeadLetters:
    def open_orders(self, keys: Sequence[EntryKey]) -> dict[EntryKey, set[Order]]:
        return {}


def _number(text: str) -> int:
    return int(text or 0)


if __name__ == "__main__":
    configure_logging("ERROR")
    print(orjson.dumps(compare(int(sys.argv[1]))).decode())
