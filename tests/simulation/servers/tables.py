"""DynamoDB: conditional writes, batches, queries, scans, PartiQL updates, TTL."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.simulation.gate import Gate
from tests.simulation.servers import expressions, updates
from tests.simulation.servers.client import Refused, operation
from tests.simulation.servers.expressions import Names, Values, condition
from tests.simulation.servers.reads import Read, key_range, require, scanned, shown
from tests.simulation.servers.streams import HASHES, Stream
from tests.simulation.servers.table import NOTHING, Key, Row, Table, hash_of
from tests.simulation.servers.table_settings import TableSettings
from tests.simulation.servers.values import (
    MAX_ITEM_BYTES,
    Binaries,
    Item,
    Value,
    equal,
    invalid,
    on_the_wire,
    stored,
)

MAX_GET, MAX_WRITE, MAX_STATEMENTS = 100, 25, 25
GET_BYTES = 16 * 1024 * 1024
# AWS: usually consistent within one second or less.
_STALE_SECONDS = 1.0
# What is past for longer, TTL takes for a mistake.
_TTL_SECONDS = 5 * 365 * 24 * 3600.0
# Why a part of a batch of statements was not done, in turn.
_BUSY = ("ProvisionedThroughputExceeded", "ThrottlingError", "InternalServerError")


class Tables(TableSettings):
    """The items of an account's tables."""

    # Single items

    @operation
    def get_item(
        self,
        gate: Gate,
        *,
        TableName: str,
        Key: Mapping[str, Value],
        ConsistentRead: bool = False,
        ProjectionExpression: str | None = None,
        ExpressionAttributeNames: Names = NOTHING,
    ) -> dict[str, Any]:
        table = self.table(TableName)
        key = table.key_of(Key, whole=True)
        row = table.partitions.get(key[0], NOTHING).get(key[1])
        if not ConsistentRead:
            row = self._seen(table, key, row, gate)
        if row is None:
            return {}
        item = row[0]
        if ProjectionExpression is not None:
            paths, names = updates.projection(ProjectionExpression)
            require(names, frozenset(), ExpressionAttributeNames, NOTHING)
            item = updates.projected(item, paths, ExpressionAttributeNames)
        return {"Item": dict(item)}

    @operation
    def put_item(
        self,
        gate: Gate,
        *,
        TableName: str,
        Item: Mapping[str, Value],
        ConditionExpression: str | None = None,
        ExpressionAttributeNames: Names = NOTHING,
        ExpressionAttributeValues: Values = NOTHING,
        ReturnValues: str = "NONE",
    ) -> dict[str, Any]:
        table = self.table(TableName)
        item, size = stored(Item)
        key = table.key_of(item)
        old = table.get(key)
        self._check(ConditionExpression, old, ExpressionAttributeNames, ExpressionAttributeValues)
        self._write(table, key, old, item, size, gate)
        return _returned(ReturnValues, old, item)

    @operation
    def update_item(
        self,
        gate: Gate,
        *,
        TableName: str,
        Key: Mapping[str, Value],
        UpdateExpression: str | None = None,
        ConditionExpression: str | None = None,
        ExpressionAttributeNames: Names = NOTHING,
        ExpressionAttributeValues: Values = NOTHING,
        ReturnValues: str = "NONE",
    ) -> dict[str, Any]:
        table = self.table(TableName)
        key = table.key_of(Key, whole=True)
        old = table.get(key)
        update = updates.update(UpdateExpression) if UpdateExpression else None
        names, values = ExpressionAttributeNames, ExpressionAttributeValues
        used = (update.names, update.values) if update else (frozenset(), frozenset())
        self._check(ConditionExpression, old, names, values, *used)
        before = table.partitions[key[0]][key[1]] if old is not None else stored(Key)
        item, size = before
        if update is not None:
            self._leave_keys(table, update, names)
            item, size = _updated(before, update, names, values)
        self._write(table, key, old, item, size, gate)
        return _returned(ReturnValues, old, item)

    @operation
    def delete_item(
        self,
        gate: Gate,
        *,
        TableName: str,
        Key: Mapping[str, Value],
        ConditionExpression: str | None = None,
        ExpressionAttributeNames: Names = NOTHING,
        ExpressionAttributeValues: Values = NOTHING,
        ReturnValues: str = "NONE",
    ) -> dict[str, Any]:
        table = self.table(TableName)
        key = table.key_of(Key, whole=True)
        old = table.get(key)
        self._check(ConditionExpression, old, ExpressionAttributeNames, ExpressionAttributeValues)
        if old is not None:
            self._delete(table, key, old, gate)
        return _returned(ReturnValues, old, {})

    @staticmethod
    def _check(
        text: str | None,
        item: Item | None,
        names: Names,
        values: Values,
        used_names: frozenset[str] = frozenset(),
        used_values: frozenset[Any] = frozenset(),
    ) -> None:
        """Raises Refused when the condition does not hold."""
        if text is None:
            require(used_names, used_values, names, values)
            return
        wanted = condition(text)
        require(used_names | wanted.names, used_values | wanted.values, names, values)
        if not wanted.holds({} if item is None else item, names, values):
            raise Refused("ConditionalCheckFailedException", "The conditional request failed")

    @staticmethod
    def _leave_keys(table: Table, update: updates.Update, names: Names) -> None:
        for first in update.paths:
            name = names[first] if first.startswith("#") else first
            if name in table.keys:
                raise invalid(
                    "One or more parameter values were invalid: "
                    f"Cannot update attribute {name}. This attribute is part of the key"
                )

    def _write(self, table: Table, key: Key, old: Item | None, item: Item, size: int, gate: Gate) -> None:
        if size > MAX_ITEM_BYTES:
            raise invalid("Item size has exceeded the maximum allowed size")
        # A write that changes nothing leaves no record.
        if old == item:
            return
        if self.stale is not None:
            self._note(table, key, gate)
        size += table.put(key, item, size)
        if table.stream is not None:
            event = "INSERT" if old is None else "MODIFY"
            change: dict[str, Any] = {"Keys": {name: item[name] for name in table.keys}, "NewImage": item}
            if old is not None:
                change["OldImage"] = old
            self._record(table, table.stream, key, event, change, size, gate)

    def _delete(self, table: Table, key: Key, old: Item, gate: Gate, *, expired: bool = False) -> None:
        if self.stale is not None:
            self._note(table, key, gate)
        size = table.remove(key)
        if table.stream is not None:
            change = {"Keys": {name: old[name] for name in table.keys}, "OldImage": old}
            self._record(table, table.stream, key, "REMOVE", change, size, gate, expired=expired)

    @staticmethod
    def _note(table: Table, key: Key, gate: Gate) -> None:
        table.recent[key] = (gate.now() + _STALE_SECONDS, table.partitions.get(key[0], NOTHING).get(key[1]))

    def _seen(self, table: Table, key: Key, row: Row | None, gate: Gate) -> Row | None:
        """What an inconsistent read sees of an item."""
        if self.stale is None or key not in table.recent:
            return row
        until, former = table.recent[key]
        return former if gate.now() < until and self.stale.random() < 0.5 else row

    def _rows(self, table: Table, rows: Iterator[Row], consistent: bool, gate: Gate) -> Iterator[Row]:
        """Those of a query or scan. What was deleted is not seen again, only what was written."""
        if consistent or self.stale is None:
            yield from rows
            return
        for row in rows:
            seen = self._seen(table, table.key_of(row[0]), row, gate)
            if seen is not None:
                yield seen

    @staticmethod
    def _record(
        table: Table,
        stream: Stream,
        key: Key,
        event: str,
        change: dict[str, Any],
        size: int,
        gate: Gate,
        *,
        expired: bool = False,
    ) -> None:
        if Binaries.stored:
            change = on_the_wire(change)
        stream.append(hash_of(key[0]), event, change, size, gate.now(), expired)

    def expire(self, gate: Gate, name: str) -> int:
        """Delete what its TTL has passed, as DynamoDB does within days. Returns how many items."""
        table = self.table(name)
        now = gate.now()
        gone = [item for item in table.items() if _has_expired(item, table.ttl, now)]
        return sum(self.expire_item(gate, name, item) for item in gone)

    def expire_item(self, gate: Gate, name: str, key: Mapping[str, Value]) -> bool:
        """Delete one item as TTL does, whatever its time. Whether there was one."""
        table = self.table(name)
        place = table.key_of(key)
        item = table.get(place)
        if item is not None:
            self._delete(table, place, item, gate, expired=True)
        return item is not None

    # Batches

    @operation
    def batch_get_item(self, gate: Gate, *, RequestItems: Mapping[str, Any]) -> dict[str, Any]:
        parts = [
            (name, key)
            for name, asked in RequestItems.items()
            for key in _some(asked["Keys"], MAX_GET, "Keys")
        ]
        if len(parts) > MAX_GET:
            raise invalid("Too many items requested for the BatchGetItem call")
        found: dict[str, list[Item]] = {name: [] for name in RequestItems}
        left: dict[str, Any] = {}
        skipped = frozenset(gate.fails("dynamodb", "BatchGetItem", len(parts)))
        size, seen = 0, set()
        for number, (name, raw) in enumerate(parts):
            table = self.table(name)
            key = table.key_of(raw, whole=True)
            if (name, key) in seen:
                raise invalid("Provided list of item keys contains duplicates")
            seen.add((name, key))
            row = table.partitions.get(key[0], NOTHING).get(key[1])
            if not RequestItems[name].get("ConsistentRead"):
                row = self._seen(table, key, row, gate)
            if number in skipped or (row is not None and size + row[1] > GET_BYTES):
                left.setdefault(name, {**RequestItems[name], "Keys": []})["Keys"].append(raw)
            elif row is not None:
                size += row[1]
                found[name].append(shown(row[0]))
        for items in found.values():
            # Not in the order of the request.
            items.reverse()
        return {"Responses": found, "UnprocessedKeys": left}

    @operation
    def batch_write_item(self, gate: Gate, *, RequestItems: Mapping[str, Any]) -> dict[str, Any]:
        parts = [(self.table(name), request) for name, some in RequestItems.items() for request in some]
        _some(parts, MAX_WRITE, "RequestItems")
        work: list[tuple[Table, Key, Row | None, Any]] = []
        seen = set()
        for table, request in parts:
            if put := request.get("PutRequest"):
                item, size = stored(put["Item"])
                key, row = table.key_of(item), (item, size)
                if size > MAX_ITEM_BYTES:
                    raise invalid("Item size has exceeded the maximum allowed size")
                work.append((table, key, row, request))
            else:
                key = table.key_of(request["DeleteRequest"]["Key"], whole=True)
                work.append((table, key, None, request))
            if (table.name, key) in seen:
                raise invalid("Provided list of item keys contains duplicates")
            seen.add((table.name, key))
        skipped = frozenset(gate.fails("dynamodb", "BatchWriteItem", len(parts)))
        left: dict[str, list[Any]] = {}
        for number, (table, key, written, request) in enumerate(work):
            old = table.get(key)
            if number in skipped:
                left.setdefault(table.name, []).append(request)
            elif written is not None:
                self._write(table, key, old, *written, gate)
            elif old is not None:
                self._delete(table, key, old, gate)
        return {"UnprocessedItems": left}

    @operation
    def batch_execute_statement(
        self, gate: Gate, *, Statements: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        _some(Statements, MAX_STATEMENTS, "Statements")
        skipped = frozenset(gate.fails("dynamodb", "BatchExecuteStatement", len(Statements)))
        responses: list[dict[str, Any]] = []
        for number, each in enumerate(Statements):
            if number in skipped:
                responses.append({"Error": {"Code": _BUSY[number % len(_BUSY)]}})
                continue
            try:
                responses.append(
                    {"TableName": self._execute(gate, each["Statement"], each.get("Parameters", ()))}
                )
            except Refused as refused:
                code = refused.code.removesuffix("Exception").replace("Validation", "ValidationError")
                responses.append({"Error": {"Code": code, "Message": refused.message}})
        return {"Responses": responses}

    def _execute(self, gate: Gate, text: str, parameters: Sequence[Value]) -> str:
        statement = updates.statement(text)
        if len(parameters) != statement.parameters:
            raise invalid("Number of parameters in request and statement don't match")
        table = self.table(statement.table)
        values: Values = dict(enumerate(parameters))
        equalities = {
            name: operand({}, NOTHING, values)
            for name, operand in statement.where.equalities
            if name in table.keys
        }
        if len(equalities) < len(table.keys):
            raise invalid("Where clause does not contain a mandatory equality on all key attributes")
        key = table.key_of({name: value for name, value in equalities.items() if value is not None})
        self._leave_keys(table, statement.update, NOTHING)
        old = table.get(key)
        # It never creates an item.
        if old is None or not statement.where.holds(old, NOTHING, values):
            raise Refused("ConditionalCheckFailedException", "The conditional request failed")
        row = table.partitions[key[0]][key[1]]
        self._write(table, key, old, *_updated(row, statement.update, NOTHING, values), gate)
        return table.name

    # Many items

    @operation
    def query(
        self,
        gate: Gate,
        *,
        TableName: str,
        KeyConditionExpression: str,
        ExpressionAttributeNames: Names = NOTHING,
        ExpressionAttributeValues: Values = NOTHING,
        FilterExpression: str | None = None,
        ProjectionExpression: str | None = None,
        ScanIndexForward: bool = True,
        ExclusiveStartKey: Mapping[str, Value] | None = None,
        ConsistentRead: bool = False,
        Limit: int | None = None,
        Select: str | None = None,
        ReturnConsumedCapacity: str = "NONE",
    ) -> dict[str, Any]:
        table = self.table(TableName)
        keys = expressions.key_condition(KeyConditionExpression)
        values = ExpressionAttributeValues
        read = Read(
            table, FilterExpression, ProjectionExpression, Select, ExpressionAttributeNames, values, keys
        )
        pk, names = key_range(table, keys, ExpressionAttributeNames, values)
        if not ScanIndexForward:
            names = names[::-1]
        if ExclusiveStartKey:
            start = table.key_of(ExclusiveStartKey, whole=True)[1]
            names = [name for name in names if (name > start if ScanIndexForward else name < start)]
        rows = table.partitions.get(pk, {})
        return read.page(self._rows(table, (rows[name] for name in names), ConsistentRead, gate), Limit)

    @operation
    def scan(
        self,
        gate: Gate,
        *,
        TableName: str,
        ExpressionAttributeNames: Names = NOTHING,
        ExpressionAttributeValues: Values = NOTHING,
        FilterExpression: str | None = None,
        ProjectionExpression: str | None = None,
        ExclusiveStartKey: Mapping[str, Value] | None = None,
        ConsistentRead: bool = False,
        Limit: int | None = None,
        Select: str | None = None,
        Segment: int = 0,
        TotalSegments: int = 1,
        ReturnConsumedCapacity: str = "NONE",
    ) -> dict[str, Any]:
        table = self.table(TableName)
        names, values = ExpressionAttributeNames, ExpressionAttributeValues
        read = Read(table, FilterExpression, ProjectionExpression, Select, names, values)
        low = bisect_left(table.order, (Segment * HASHES // TotalSegments, ""))
        high = bisect_left(table.order, ((Segment + 1) * HASHES // TotalSegments, ""))
        after: Key | None = None
        if ExclusiveStartKey:
            after = table.key_of(ExclusiveStartKey, whole=True)
            low = bisect_left(table.order, (hash_of(after[0]), after[0]))
        found = scanned(table, table.order[low:high], after)
        return read.page(self._rows(table, found, ConsistentRead, gate), Limit)


def _updated(row: Row, update: updates.Update, names: Names, values: Values) -> Row:
    """The item after an update, and its size."""
    before, size = row
    item = update.apply(before, names, values)
    written = [names[name] if name.startswith("#") else name for name in update.paths]
    kept, more = stored({name: item[name] for name in written if name in item})
    _, less = stored({name: before[name] for name in written if name in before})
    item.update(kept)
    return item, size + more - less


def _returned(wanted: str, old: Item | None, new: Item) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    if wanted == "ALL_OLD" and old is not None:
        answer["Attributes"] = dict(old)
    elif wanted == "ALL_NEW":
        answer["Attributes"] = dict(new)
    elif wanted == "UPDATED_NEW":
        before = old or {}
        answer["Attributes"] = {
            name: value for name, value in new.items() if not equal(value, before.get(name))
        }
    return answer


def _some(parts: Any, most: int, what: str) -> Any:
    if not 0 < len(parts) <= most:
        raise invalid(f"Value at '{what}' failed to satisfy constraint: between 1 and {most} members")
    return parts


def _has_expired(item: Item, attribute: str | None, now: float) -> bool:
    if attribute is None:
        return False
    until = item.get(attribute, NOTHING).get("N")
    return until is not None and now - _TTL_SECONDS < float(until) < now
