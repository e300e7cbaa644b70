"""DynamoDB: tables by partition and sort key, conditional writes, batches, queries, scans, PartiQL updates, TTL."""

from __future__ import annotations

import json
import zlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

from tests.simulation.gate import Gate
from tests.simulation.servers import expressions
from tests.simulation.servers.client import METADATA, Refused, operation
from tests.simulation.servers.expressions import Names, Values, condition
from tests.simulation.servers.streams import HASHES, Stream, Streams
from tests.simulation.servers.values import (
    MAX_ITEM_BYTES,
    Binaries,
    Item,
    Value,
    equal,
    invalid,
    on_the_wire,
    stored,
    text_bytes,
)

MAX_GET, MAX_WRITE, MAX_STATEMENTS = 100, 25, 25
PAGE_BYTES, GET_BYTES = 1024 * 1024, 16 * 1024 * 1024
_KEY_BYTES = (2048, 1024)
# AWS: usually consistent within one second or less.
_STALE_SECONDS = 1.0
# What is past for longer, TTL takes for a mistake.
_TTL_SECONDS = 5 * 365 * 24 * 3600.0
_NOTHING: Mapping[str, Any] = {}
# Why a part of a batch of statements was not done, in turn.
_BUSY = ("ProvisionedThroughputExceeded", "ThrottlingError", "InternalServerError")

Key = tuple[str, str]
Row = tuple[Item, int]


class Table:
    """Items by partition and sort key, both texts. The hash of a partition key decides its place in a scan."""

    def __init__(self, name: str, description: dict[str, Any]) -> None:
        self.name, self.description = name, description
        schema = sorted(description["KeySchema"], key=lambda each: str(each["KeyType"]))
        self.keys = [str(each["AttributeName"]) for each in schema]
        self.partitions: dict[str, dict[str, Row]] = {}
        # Sort keys of each partition, and partitions, in order.
        self.sorted: dict[str, list[str]] = {}
        self.order: list[tuple[int, str]] = []
        self.stream: Stream | None = None
        self.ttl: str | None = None
        self.recovery = False
        # Until when, and what, an inconsistent read may still see; only with `Tables.stale`.
        self.recent: dict[Key, tuple[float, Row | None]] = {}

    def key_of(self, values: Mapping[str, Value], *, whole: bool = False) -> Key:
        """Raises Refused unless the attributes of the key are there as texts; `whole` allows no others."""
        if whole and len(values) != len(self.keys):
            raise invalid("The provided key element does not match the schema")
        found = []
        for name, most in zip(self.keys, _KEY_BYTES, strict=False):
            text = values.get(name, _NOTHING).get("S")
            if text is None:
                if whole or name in values:
                    raise invalid("The provided key element does not match the schema")
                raise invalid(
                    f"One or more parameter values were invalid: Missing the key {name} in the item"
                )
            if not text or text_bytes(text) > most:
                raise invalid(f"One or more parameter values are not valid: the size of {name}")
            found.append(text)
        return found[0], found[1] if len(found) > 1 else ""

    def get(self, key: Key) -> Item | None:
        row = self.partitions.get(key[0], _NOTHING).get(key[1])
        return None if row is None else row[0]

    def put(self, key: Key, item: Item, size: int) -> int:
        """Returns the size of the item that it replaces."""
        rows = self.partitions.get(key[0])
        if rows is None:
            rows = self.partitions[key[0]] = {}
            self.sorted[key[0]] = []
            insort(self.order, (hash_of(key[0]), key[0]))
        if key[1] not in rows:
            insort(self.sorted[key[0]], key[1])
            replaced = 0
        else:
            replaced = rows[key[1]][1]
        rows[key[1]] = (item, size)
        return replaced

    def remove(self, key: Key) -> int:
        """Returns the size of the item."""
        rows = self.partitions[key[0]]
        _, size = rows.pop(key[1])
        names = self.sorted[key[0]]
        del names[bisect_left(names, key[1])]
        if not rows:
            del self.partitions[key[0]], self.sorted[key[0]]
            self.order.remove((hash_of(key[0]), key[0]))
        return size

    def items(self) -> Iterator[Item]:
        for rows in self.partitions.values():
            for item, _ in rows.values():
                yield item


def hash_of(partition_key: str) -> int:
    return zlib.crc32(partition_key.encode("utf-8", "surrogatepass"))


class Tables:
    """An account's tables in a region. `shards` is the number with which a new stream begins. With `stale`, half of the
    reads that do not ask for consistency see an item as it was before its last write of this second.
    """

    def __init__(
        self, streams: Streams, region: str, account: str, *, shards: int = 1, stale: Random | None = None
    ) -> None:
        self.region, self.account, self.shards, self.stale = region, account, shards, stale
        self.streams = streams
        self.tables: dict[str, Table] = {}

    def table(self, name: str) -> Table:
        # An ARN serves as well.
        found = self.tables.get(name.rpartition("/")[2])
        if found is None:
            raise Refused(
                "ResourceNotFoundException", f"Requested resource not found: Table: {name} not found"
            )
        return found

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
        ExpressionAttributeNames: Names = _NOTHING,
    ) -> dict[str, Any]:
        table = self.table(TableName)
        key = table.key_of(Key, whole=True)
        row = table.partitions.get(key[0], _NOTHING).get(key[1])
        if not ConsistentRead:
            row = self._seen(table, key, row, gate)
        if row is None:
            return {"ResponseMetadata": METADATA}
        item = row[0]
        if ProjectionExpression is not None:
            paths, names = expressions.projection(ProjectionExpression)
            _require(names, frozenset(), ExpressionAttributeNames, _NOTHING)
            item = expressions.projected(item, paths, ExpressionAttributeNames)
        return {"Item": dict(item), "ResponseMetadata": METADATA}

    @operation
    def put_item(
        self,
        gate: Gate,
        *,
        TableName: str,
        Item: Mapping[str, Value],
        ConditionExpression: str | None = None,
        ExpressionAttributeNames: Names = _NOTHING,
        ExpressionAttributeValues: Values = _NOTHING,
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
        ExpressionAttributeNames: Names = _NOTHING,
        ExpressionAttributeValues: Values = _NOTHING,
        ReturnValues: str = "NONE",
    ) -> dict[str, Any]:
        table = self.table(TableName)
        key = table.key_of(Key, whole=True)
        old = table.get(key)
        update = expressions.update(UpdateExpression) if UpdateExpression else None
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
        ExpressionAttributeNames: Names = _NOTHING,
        ExpressionAttributeValues: Values = _NOTHING,
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
            _require(used_names, used_values, names, values)
            return
        wanted = condition(text)
        _require(used_names | wanted.names, used_values | wanted.values, names, values)
        if not wanted.holds({} if item is None else item, names, values):
            raise Refused("ConditionalCheckFailedException", "The conditional request failed")

    @staticmethod
    def _leave_keys(table: Table, update: expressions.Update, names: Names) -> None:
        for path in update.paths:
            first = str(path[0])
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
        table.recent[key] = (gate.now() + _STALE_SECONDS, table.partitions.get(key[0], _NOTHING).get(key[1]))

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
            row = table.partitions.get(key[0], _NOTHING).get(key[1])
            if not RequestItems[name].get("ConsistentRead"):
                row = self._seen(table, key, row, gate)
            if number in skipped or (row is not None and size + row[1] > GET_BYTES):
                left.setdefault(name, {**RequestItems[name], "Keys": []})["Keys"].append(raw)
            elif row is not None:
                size += row[1]
                found[name].append(_shown(row[0]))
        for items in found.values():
            # Not in the order of the request.
            items.reverse()
        return {"Responses": found, "UnprocessedKeys": left, "ResponseMetadata": METADATA}

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
        return {"UnprocessedItems": left, "ResponseMetadata": METADATA}

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
        return {"Responses": responses, "ResponseMetadata": METADATA}

    def _execute(self, gate: Gate, text: str, parameters: Sequence[Value]) -> str:
        statement = expressions.statement(text)
        if len(parameters) != statement.parameters:
            raise invalid("Number of parameters in request and statement don't match")
        table = self.table(statement.table)
        values: Values = dict(enumerate(parameters))
        equalities = {
            name: operand({}, _NOTHING, values)
            for name, operand in statement.where.equalities
            if name in table.keys
        }
        if len(equalities) < len(table.keys):
            raise invalid("Where clause does not contain a mandatory equality on all key attributes")
        key = table.key_of({name: value for name, value in equalities.items() if value is not None})
        self._leave_keys(table, statement.update, _NOTHING)
        old = table.get(key)
        # It never creates an item.
        if old is None or not statement.where.holds(old, _NOTHING, values):
            raise Refused("ConditionalCheckFailedException", "The conditional request failed")
        row = table.partitions[key[0]][key[1]]
        self._write(table, key, old, *_updated(row, statement.update, _NOTHING, values), gate)
        return table.name

    # Many items

    @operation
    def query(
        self,
        gate: Gate,
        *,
        TableName: str,
        KeyConditionExpression: str,
        ExpressionAttributeNames: Names = _NOTHING,
        ExpressionAttributeValues: Values = _NOTHING,
        FilterExpression: str | None = None,
        ProjectionExpression: str | None = None,
        ScanIndexForward: bool = True,
        ExclusiveStartKey: Mapping[str, Value] | None = None,
        ConsistentRead: bool = False,
        Limit: int | None = None,
        Select: str | None = None,
    ) -> dict[str, Any]:
        table = self.table(TableName)
        keys = expressions.key_condition(KeyConditionExpression)
        values = ExpressionAttributeValues
        read = _Read(
            table, FilterExpression, ProjectionExpression, Select, ExpressionAttributeNames, values, keys
        )
        pk, names = _range(table, keys, ExpressionAttributeNames, values)
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
        ExpressionAttributeNames: Names = _NOTHING,
        ExpressionAttributeValues: Values = _NOTHING,
        FilterExpression: str | None = None,
        ProjectionExpression: str | None = None,
        ExclusiveStartKey: Mapping[str, Value] | None = None,
        ConsistentRead: bool = False,
        Limit: int | None = None,
        Select: str | None = None,
        Segment: int = 0,
        TotalSegments: int = 1,
    ) -> dict[str, Any]:
        table = self.table(TableName)
        names, values = ExpressionAttributeNames, ExpressionAttributeValues
        read = _Read(table, FilterExpression, ProjectionExpression, Select, names, values)
        low = bisect_left(table.order, (Segment * HASHES // TotalSegments, ""))
        high = bisect_left(table.order, ((Segment + 1) * HASHES // TotalSegments, ""))
        after: Key | None = None
        if ExclusiveStartKey:
            after = table.key_of(ExclusiveStartKey, whole=True)
            low = bisect_left(table.order, (hash_of(after[0]), after[0]))
        found = _scanned(table, table.order[low:high], after)
        return read.page(self._rows(table, found, ConsistentRead, gate), Limit)

    # Tables

    @operation
    def create_table(
        self,
        gate: Gate,
        *,
        TableName: str,
        KeySchema: Sequence[Mapping[str, str]],
        AttributeDefinitions: Sequence[Mapping[str, str]],
        BillingMode: str = "PROVISIONED",
        DeletionProtectionEnabled: bool = False,
        StreamSpecification: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        if TableName in self.tables:
            raise Refused("ResourceInUseException", f"Table already exists: {TableName}")
        table = Table(
            TableName,
            {
                "TableName": TableName,
                "TableStatus": "ACTIVE",
                "TableArn": f"arn:aws:dynamodb:{self.region}:{self.account}:table/{TableName}",
                "KeySchema": [dict(each) for each in KeySchema],
                "AttributeDefinitions": [dict(each) for each in AttributeDefinitions],
                "BillingModeSummary": {"BillingMode": BillingMode},
                "DeletionProtectionEnabled": DeletionProtectionEnabled,
            },
        )
        self.tables[TableName] = table
        if StreamSpecification is not None:
            self._set_stream(table, StreamSpecification, gate)
        return {"TableDescription": self._described(table), "ResponseMetadata": METADATA}

    def _set_stream(self, table: Table, wanted: Mapping[str, Any], gate: Gate) -> None:
        if wanted["StreamEnabled"]:
            if table.stream is not None:
                raise invalid(f"Table already has an enabled stream: TableName: {table.name}")
            table.stream = self.streams.begin(table.name, gate.now(), self.shards)
            table.description["StreamSpecification"] = dict(wanted)
            table.description["LatestStreamArn"] = table.stream.arn
            table.description["LatestStreamLabel"] = table.stream.label
        elif table.stream is not None:
            table.stream.end(gate.now())
            table.stream = None
            del table.description["StreamSpecification"]

    @staticmethod
    def _described(table: Table) -> dict[str, Any]:
        sizes = [size for rows in table.partitions.values() for _, size in rows.values()]
        copy: dict[str, Any] = json.loads(json.dumps(table.description))
        return {**copy, "ItemCount": len(sizes), "TableSizeBytes": sum(sizes)}

    @operation
    def describe_table(self, gate: Gate, *, TableName: str) -> dict[str, Any]:
        return {"Table": self._described(self.table(TableName)), "ResponseMetadata": METADATA}

    @operation
    def update_table(
        self,
        gate: Gate,
        *,
        TableName: str,
        StreamSpecification: Mapping[str, Any] | None = None,
        DeletionProtectionEnabled: bool | None = None,
        WarmThroughput: Mapping[str, int] | None = None,
    ) -> dict[str, Any]:
        table = self.table(TableName)
        if StreamSpecification is not None:
            self._set_stream(table, StreamSpecification, gate)
        if DeletionProtectionEnabled is not None:
            table.description["DeletionProtectionEnabled"] = DeletionProtectionEnabled
        if WarmThroughput is not None:
            table.description["WarmThroughput"] = {**WarmThroughput, "Status": "ACTIVE"}
        return {"TableDescription": self._described(table), "ResponseMetadata": METADATA}

    @operation
    def delete_table(self, gate: Gate, *, TableName: str) -> dict[str, Any]:
        table = self.table(TableName)
        if table.description["DeletionProtectionEnabled"]:
            raise invalid(f"Resource cannot be deleted as it is currently protected: Table: {TableName}")
        if table.stream is not None:
            table.stream.end(gate.now())
        del self.tables[table.name]
        return {"TableDescription": self._described(table), "ResponseMetadata": METADATA}

    @operation
    def list_tables(self, gate: Gate) -> dict[str, Any]:
        return {"TableNames": sorted(self.tables), "ResponseMetadata": METADATA}

    @operation
    def update_time_to_live(
        self, gate: Gate, *, TableName: str, TimeToLiveSpecification: Mapping[str, Any]
    ) -> dict[str, Any]:
        table, wanted = self.table(TableName), TimeToLiveSpecification
        if wanted["Enabled"] == (table.ttl is not None):
            raise invalid(f"TimeToLive is already {'enabled' if wanted['Enabled'] else 'disabled'}")
        table.ttl = wanted["AttributeName"] if wanted["Enabled"] else None
        return {"TimeToLiveSpecification": dict(wanted), "ResponseMetadata": METADATA}

    @operation
    def describe_time_to_live(self, gate: Gate, *, TableName: str) -> dict[str, Any]:
        ttl = self.table(TableName).ttl
        on = {"TimeToLiveStatus": "ENABLED", "AttributeName": ttl}
        description = {"TimeToLiveStatus": "DISABLED"} if ttl is None else on
        return {"TimeToLiveDescription": description, "ResponseMetadata": METADATA}

    @operation
    def update_continuous_backups(
        self, gate: Gate, *, TableName: str, PointInTimeRecoverySpecification: Mapping[str, Any]
    ) -> dict[str, Any]:
        self.table(TableName).recovery = bool(PointInTimeRecoverySpecification["PointInTimeRecoveryEnabled"])
        return self._backups(TableName)

    @operation
    def describe_continuous_backups(self, gate: Gate, *, TableName: str) -> dict[str, Any]:
        return self._backups(TableName)

    def _backups(self, name: str) -> dict[str, Any]:
        status = "ENABLED" if self.table(name).recovery else "DISABLED"
        backups = {
            "ContinuousBackupsStatus": "ENABLED",
            "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": status},
        }
        return {"ContinuousBackupsDescription": backups, "ResponseMetadata": METADATA}


class _Read:
    """The filter, projection and page of a query or scan."""

    def __init__(
        self,
        table: Table,
        filter_: str | None,
        projection: str | None,
        select: str | None,
        names: Names,
        values: Values,
        keys: expressions.KeyCondition | None = None,
    ) -> None:
        self._table, self._names, self._values = table, names, values
        self._filter = condition(filter_, "FilterExpression") if filter_ else None
        self._paths, used = expressions.projection(projection) if projection else ((), frozenset())
        self._counts = select == "COUNT"
        used_values: frozenset[Any] = frozenset()
        for part in (self._filter, keys):
            if part is not None:
                used, used_values = used | part.names, used_values | part.values
        _require(used, used_values, names, values)
        if keys is not None and self._filter is not None:
            read = {names[name] if name.startswith("#") else name for name in self._filter.reads}
            if read & {*table.keys}:
                raise invalid("Filter Expression can only contain non-primary key attributes")

    def page(self, rows: Iterator[Row], limit: int | None) -> dict[str, Any]:
        found: list[Item] = []
        scanned = size = count = 0
        last: Item | None = None
        for item, more in rows:
            scanned += 1
            size += more
            if self._filter is None or self._filter.holds(item, self._names, self._values):
                count += 1
                if not self._counts:
                    found.append(self._shown(item))
            # Also after the last row: the next page is empty then.
            if scanned == limit or size > PAGE_BYTES:
                last = item
                break
        answer: dict[str, Any] = {"Count": count, "ScannedCount": scanned, "ResponseMetadata": METADATA}
        if not self._counts:
            answer["Items"] = found
        if last is not None:
            answer["LastEvaluatedKey"] = {name: last[name] for name in self._table.keys}
        return answer

    def _shown(self, item: Item) -> Item:
        if self._paths:
            item = expressions.projected(item, self._paths, self._names)
        return _shown(item)


def _range(
    table: Table, keys: expressions.KeyCondition, names: Names, values: Values
) -> tuple[str, list[str]]:
    """The partition of a query, and its sort keys in order."""
    pk: str | None = None
    wanted: tuple[str, list[str]] | None = None
    for name, sign, operands in keys.parts:
        texts = [values[each].get("S") for each in operands]
        attribute = names[name] if name.startswith("#") else name
        if None in texts or attribute not in table.keys:
            raise invalid("Query condition missed key schema element, or its type does not match")
        given = [str(text) for text in texts]
        if attribute == table.keys[0] and sign == "=":
            pk = given[0]
        elif attribute != table.keys[0] and wanted is None:
            wanted = (sign, given)
        else:
            raise invalid("Query key condition not supported")
    if pk is None:
        raise invalid(f"Query condition missed key schema element: {table.keys[0]}")
    found = table.sorted.get(pk, [])
    if wanted is None:
        return pk, found
    sign, given = wanted
    left, right = bisect_left(found, given[0]), bisect_right(found, given[-1])
    if sign == "begins_with":
        return pk, _beginning(found[left:], given[0])
    bounds = {"=": (left, right), "<": (0, left), "<=": (0, right), ">": (right, None), ">=": (left, None)}
    low, high = bounds.get(sign, (left, right))
    return pk, found[low:high]


def _beginning(names: list[str], start: str) -> list[str]:
    for number, name in enumerate(names):
        if not name.startswith(start):
            return names[:number]
    return names


def _scanned(table: Table, order: Sequence[tuple[int, str]], after: Key | None) -> Iterator[Row]:
    for _, pk in order:
        names = table.sorted[pk]
        if after is not None and pk == after[0]:
            names = names[bisect_right(names, after[1]) :]
        rows = table.partitions[pk]
        for name in names:
            yield rows[name]


def _shown(item: Item) -> Item:
    """A copy, as a large answer has it."""
    if not Binaries.stored:
        return dict(item)
    copy: Item = on_the_wire(item)
    return copy


def _updated(row: Row, update: expressions.Update, names: Names, values: Values) -> Row:
    """The item after an update, and its size."""
    before, size = row
    item = update.apply(before, names, values)
    first = {str(path[0]) for path in update.paths}
    written = [names[name] if name.startswith("#") else name for name in first]
    kept, more = stored({name: item[name] for name in written if name in item})
    _, less = stored({name: before[name] for name in written if name in before})
    item.update(kept)
    return item, size + more - less


def _returned(wanted: str, old: Item | None, new: Item) -> dict[str, Any]:
    answer: dict[str, Any] = {"ResponseMetadata": METADATA}
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


def _require(names: frozenset[str], values: frozenset[Any], given_names: Names, given_values: Values) -> None:
    """The given placeholders are those that the expressions use."""
    for given in (given_names, given_values):
        if not given and given is not _NOTHING:
            raise invalid("ExpressionAttributeNames and ExpressionAttributeValues must not be empty")
    if names != given_names.keys():
        unused = given_names.keys() - names
        if unused:
            raise invalid(f"Value provided in ExpressionAttributeNames unused in expressions: keys: {unused}")
        raise invalid("An expression attribute name used in the document path is not defined")
    if values != given_values.keys():
        unused = given_values.keys() - values
        if unused:
            raise invalid(
                f"Value provided in ExpressionAttributeValues unused in expressions: keys: {unused}"
            )
        raise invalid("An expression attribute value used in expression is not defined")


def _has_expired(item: Item, attribute: str | None, now: float) -> bool:
    if attribute is None:
        return False
    until = item.get(attribute, _NOTHING).get("N")
    return until is not None and now - _TTL_SECONDS < float(until) < now
