"""MongoDB as a replica set of one history: collections with indexes and TTL, elections, and writes that they undo."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NamedTuple

import bson
from pymongo.errors import AutoReconnect, NotPrimaryError

from tests.simulation.gate import Gate
from tests.simulation.servers.documents import (
    MAX_BYTES,
    MISSING,
    Document,
    Refused,
    Update,
    at,
    is_operators,
    matcher,
    normal,
    of_equalities,
    order_key,
    stored,
)

# MongoDB's monitor looks for expired documents once a minute.
TTL_SECONDS = 60.0
# After this time a write is on the other members, acknowledged or not.
REPLICATION_SECONDS = 0.05
DUPLICATE_KEY = 11000
_NO_PRIMARY = {"code": 10107, "codeName": "NotWritablePrimary", "errorLabels": ["RetryableWriteError"]}
# Codes of writes that the server did not do, in turn: shutdown, election, no space in the cache.
_INTERRUPTED = (91, 11602, 189)


class Row(NamedTuple):
    document: Document
    raw: bytes


class _Change(NamedTuple):
    """One entry of the log of operations: what it replaced."""

    number: int
    at: float
    table: Table
    key: Any
    before: Row | None


@dataclass(slots=True, eq=False)
class Index:
    name: str
    keys: tuple[tuple[str, Any], ...]
    options: dict[str, Any]
    # Of a unique index: the key of the document by its values.
    held: dict[Any, Any] = field(default_factory=dict)
    # While it is built: how many documents are done, and all.
    progress: Mapping[str, int] | None = None

    @property
    def unique(self) -> bool:
        return bool(self.options.get("unique"))

    def values(self, document: Document) -> tuple[Any, ...] | None:
        """None for a document that a sparse or partial index leaves out."""
        found = [at(document, path) for path, _ in self.keys]
        if self.options.get("sparse") and all(value is MISSING for value in found):
            return None
        partial = self.options.get("partialFilterExpression")
        if partial is not None and not matcher(partial)(document):
            return None
        return tuple(map(order_key, found))

    def listed(self) -> Document:
        spec = {"v": 2, "key": dict(self.keys), "name": self.name, **self.options}
        return {"spec": spec, "buildUUID": self.name} if self.progress else spec


_ID_INDEX = Index("_id_", (("_id", 1),), {})


def key_of(identity: Any) -> Any:
    return identity if type(identity) is str else order_key(identity)


class Table:
    """A collection. Its documents are in their natural order."""

    def __init__(self, server: Mongo, full_name: str) -> None:
        self._server, self.full_name = server, full_name
        self.rows: dict[Any, Row] = {}
        self.indexes: dict[str, Index] = {}

    # Reading.

    def find(self, query: Mapping[str, Any]) -> Iterator[Row]:
        """Rows that match a filter in BSON's types."""
        rows = self._candidates(query)
        if not rows:
            return
        identity = query.get("_id", MISSING)
        # Chosen by their id already, and there are conditions on nothing else.
        if (
            len(query) == 1
            and identity is not MISSING
            and (not is_operators(identity) or list(identity) == ["$in"])
        ):
            yield from rows
            return
        matches = matcher(query)
        for row in rows:
            if matches(row.document):
                yield row

    def first(self, query: Mapping[str, Any]) -> Row | None:
        return next(self.find(query), None)

    def _candidates(self, query: Mapping[str, Any]) -> Sequence[Row]:
        identity = query.get("_id", MISSING)
        if identity is MISSING:
            return list(self.rows.values())
        if not is_operators(identity):
            if isinstance(identity, bson.Regex):
                raise NotImplementedError("a regular expression for an id")
            row = self.rows.get(key_of(identity))
            return () if row is None else (row,)
        if "$in" in identity:
            wanted, held = identity["$in"], self.rows
            if all(type(each) is str for each in wanted):
                return [held[key] for key in sorted(set(wanted)) if key in held]
            keys = sorted({order_key(each): key_of(each) for each in wanted}.items())
            return [held[key] for _, key in keys if key in held]
        return list(self.rows.values())

    # Writing.

    def insert(self, document: Document, raw: bytes) -> Any:
        """Returns the `_id`. Raises Refused."""
        identity = document["_id"]
        if type(identity) in (list, bson.Regex):
            raise Refused(53, "The '_id' value cannot be of type array")
        if key_of(identity) in self.rows:
            raise self._duplicate(_ID_INDEX, document)
        self._put(key_of(identity), document, raw)
        return identity

    def update(self, query: Document, update: Update, *, upsert: bool, many: bool) -> _Updated:
        """Raises Refused."""
        matched = modified = 0
        for row in self.find(query):
            matched += 1
            modified += self._replace(row, update.apply(row.document))
            if not many:
                break
        if matched or not upsert:
            return _Updated(matched, modified, None)
        begun = of_equalities(query)
        if "_id" in begun:
            begun = {"_id": begun.pop("_id"), **begun}
        document = update.apply(begun, inserting=True)
        if "_id" not in document:
            document = {"_id": bson.ObjectId(), **document}
        return _Updated(0, 0, self.insert(*self._kept(document)))

    def replace(self, query: Document, document: Document, *, upsert: bool) -> _Updated:
        row = self.first(query)
        if row is not None:
            identity = row.document["_id"]
            if document.get("_id", identity) != identity:
                raise Refused(
                    66,
                    "After applying the update, the (immutable) field '_id' was found to have been altered",
                )
            return _Updated(1, self._replace(row, {"_id": identity, **document}), None)
        if not upsert:
            return _Updated(0, 0, None)
        identity = document.get("_id", of_equalities(query).get("_id", MISSING))
        made = {"_id": bson.ObjectId() if identity is MISSING else identity, **document}
        return _Updated(0, 0, self.insert(*self._kept(made)))

    def delete(self, query: Document, *, many: bool) -> int:
        rows = list(self.find(query)) if many else [row for row in (self.first(query),) if row is not None]
        for row in rows:
            self.remove(key_of(row.document["_id"]))
        return len(rows)

    def remove(self, key: Any) -> None:
        self._log(key, self.rows[key])
        self.set(key, None)

    def _replace(self, row: Row, document: Document) -> bool:
        """Whether it changed."""
        document, raw = self._kept(document)
        if raw == row.raw:
            return False
        self._put(key_of(document["_id"]), document, raw)
        return True

    def _kept(self, document: Document) -> tuple[Document, bytes]:
        raw = bson.encode(document)
        if len(raw) > MAX_BYTES:
            raise Refused(17419, f"Resulting document after update is larger than {MAX_BYTES}")
        return document, raw

    def _put(self, key: Any, document: Document, raw: bytes) -> None:
        before = self.rows.get(key)
        for index in self.indexes.values():
            if index.unique:
                values = index.values(document)
                if values is not None and index.held.get(values, key) != key:
                    raise self._duplicate(index, document)
        self._log(key, before)
        self.set(key, Row(document, raw))

    def set(self, key: Any, row: Row | None) -> None:
        """Store or remove without asking, such as when a change is undone."""
        before = self.rows.get(key)
        for index in self.indexes.values():
            if index.unique:
                if before is not None:
                    index.held.pop(index.values(before.document), None)
                values = None if row is None else index.values(row.document)
                if values is not None:
                    index.held[values] = key
        if row is not None:
            self.rows[key] = row
        elif before is not None:
            del self.rows[key]

    def _log(self, key: Any, before: Row | None) -> None:
        self._server.log(self, key, before)

    def _duplicate(self, index: Index, document: Document) -> Refused:
        values = {path: at(document, path) for path, _ in index.keys}
        values = {path: None if value is MISSING else value for path, value in values.items()}
        shown = ", ".join(f'{path}: "{value}"' for path, value in values.items())
        return Refused(
            DUPLICATE_KEY,
            f"E11000 duplicate key error collection: {self.full_name} index: {index.name} dup key: {{ {shown} }}",
            keyPattern=dict(index.keys),
            keyValue=values,
        )

    # Indexes.

    def create_index(self, keys: tuple[tuple[str, Any], ...], options: dict[str, Any]) -> str:
        """Returns the name. Raises Refused."""
        name = options.pop("name", None) or "_".join(f"{path}_{direction}" for path, direction in keys)
        options = {each: value for each, value in options.items() if value is not None and value is not False}
        options.pop("background", None)
        if keys == _ID_INDEX.keys:
            return _ID_INDEX.name
        index = Index(name, keys, options)
        for other in self.indexes.values():
            same_keys, same_name = other.keys == keys, other.name == name
            if same_keys and same_name and other.options == options:
                return name
            if same_name:
                of_time = {**other.options, "expireAfterSeconds": 0} == {**options, "expireAfterSeconds": 0}
                if same_keys and of_time:
                    raise Refused(
                        85, "An equivalent index already exists with the same name but different options"
                    )
                raise Refused(86, "An existing index has the same name as the requested index")
            if same_keys:
                raise Refused(85, f"Index already exists with a different name: {other.name}")
        if index.unique:
            for key, row in self.rows.items():
                values = index.values(row.document)
                if values is not None and index.held.setdefault(values, key) != key:
                    raise self._duplicate(index, row.document)
        self.indexes[name] = index
        return name

    def expired(self, now: float) -> list[Any]:
        """Keys of documents that TTL indexes end."""
        found = []
        for index in self.indexes.values():
            seconds = index.options.get("expireAfterSeconds")
            if seconds is None:
                continue
            # The driver returns times without a zone.
            limit = datetime.fromtimestamp(now, UTC).replace(tzinfo=None) - timedelta(seconds=seconds)
            ((path, _),) = index.keys
            for key, row in self.rows.items():
                value = at(row.document, path)
                times = [
                    each for each in (value if type(value) is list else [value]) if isinstance(each, datetime)
                ]
                if times and min(times) <= limit:
                    found.append(key)
        return found


class _Updated(NamedTuple):
    matched: int
    modified: int
    upserted: Any


class Mongo:
    """The set. A write of the majority is never lost once it was acknowledged; any other may be, in an election: that
    of a client with another write concern, and one whose answer was not sent yet.
    """

    def __init__(self, *, random: Random | None = None) -> None:
        self.databases: dict[str, dict[str, Table]] = {}
        self._random = random or Random(0)
        self._tail: deque[_Change] = deque()
        self._number = 0
        self._term = 0
        self._without_primary_until = 0.0
        self._next_look = 0.0
        self._now = 0.0
        self.rolled_back = 0

    def client(self, gate: Gate, *, w: int | str = "majority") -> Any:
        """A process's client with this write concern."""
        from tests.simulation.servers.mongo_client import Client

        return Client(self, gate, w=w)

    def elect(self, until: float, *, rolls_back: bool) -> int:
        """No member is primary until then (by the gates' clock). With `rolls_back` the next one lacks what no majority
        had; returns how many changes were undone.
        """
        self._term += 1
        self._without_primary_until = until
        undone = 0
        while rolls_back and self._tail:
            change = self._tail.pop()
            change.table.set(change.key, change.before)
            undone += 1
        self._tail.clear()
        self.rolled_back += undone
        return undone

    def builds(self) -> list[Document]:
        """Operations that build an index."""
        tables = [table for tables in self.databases.values() for table in tables.values()]
        return [
            {"ns": table.full_name, "msg": "Index Build: scanning collection", "progress": index.progress}
            for table in tables
            for index in table.indexes.values()
            if index.progress
        ]

    def table(self, database: str, name: str) -> Table | None:
        return self.databases.get(database, {}).get(name)

    def made_table(self, database: str, name: str) -> Table:
        tables = self.databases.setdefault(database, {})
        table = tables.get(name)
        if table is None:
            table = tables[name] = Table(self, f"{database}.{name}")
        return table

    def drop(self, database: str, name: str | None = None) -> None:
        """A collection, or with None all of a database. Elections do not undo it."""
        tables = self.databases.get(database, {})
        gone = [tables.pop(each) for each in list(tables) if name is None or each == name]
        self._tail = deque(change for change in self._tail if change.table not in gone)
        if not tables:
            self.databases.pop(database, None)

    def log(self, table: Table, key: Any, before: Row | None) -> None:
        self._number += 1
        self._tail.append(_Change(self._number, self._now, table, key, before))

    # What each call of a client passes.

    def begin(self, gate: Gate) -> int:
        """Before the server does anything. Returns the term. Raises what a driver does without a primary."""
        now = self._now = gate.now()
        if now < self._without_primary_until:
            if self._random.random() < 0.5:
                raise NotPrimaryError("not primary", dict(_NO_PRIMARY))
            raise AutoReconnect("connection closed")
        tail = self._tail
        while tail and tail[0].at <= now - REPLICATION_SECONDS:
            tail.popleft()
        if now >= self._next_look:
            self._next_look = now + TTL_SECONDS
            for tables in self.databases.values():
                for table in tables.values():
                    for key in table.expired(now):
                        if key in table.rows:
                            table.remove(key)
        return self._term

    @property
    def number(self) -> int:
        """Of the last change."""
        return self._number

    def acknowledge(self, term: int, number: int, *, majority: bool) -> None:
        """Up to this change everything is on a majority. Raises AutoReconnect when an election came between."""
        if term != self._term:
            raise AutoReconnect("connection closed")
        if majority:
            tail = self._tail
            while tail and tail[0].number <= number:
                tail.popleft()


def interrupted(number: int) -> Document:
    """The write error of a part of a bulk that the server did not process."""
    code = _INTERRUPTED[number % len(_INTERRUPTED)]
    return {"index": number, "code": code, "errmsg": "operation was interrupted"}


def keys_of(keys: Any) -> tuple[tuple[str, Any], ...]:
    """Of an index or a sort, as the driver takes them."""
    if isinstance(keys, str):
        return ((keys, 1),)
    if isinstance(keys, Mapping):
        return tuple(keys.items())
    return tuple((each, 1) if isinstance(each, str) else (each[0], each[1]) for each in keys)


def prepared(document: Any) -> tuple[Document, bytes]:
    """Of a document that is inserted; gives it an id, as the driver does. Raises what the driver does."""
    if "_id" not in document:
        document["_id"] = bson.ObjectId()
    made, raw = stored(document)
    if next(iter(made)) != "_id":
        made = {"_id": made.pop("_id"), **made}
        raw = bson.encode(made)
    return made, raw


def compiled(update: Any) -> Update:
    """Raises ValueError as the driver does, and Refused."""
    if not isinstance(update, Mapping):
        raise (
            NotImplementedError("updates with pipelines")
            if isinstance(update, Sequence)
            else TypeError("update")
        )
    if not update:
        raise ValueError("update cannot be empty")
    if not next(iter(update)).startswith("$"):
        raise ValueError("update only works with $ operators")
    return Update(normal(update))
