"""pymongo's client, database, collection and cursor over a simulated MongoDB."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Self, TypeVar

import bson
from pymongo import DeleteMany, DeleteOne, InsertOne, ReplaceOne, UpdateMany, UpdateOne
from pymongo.errors import (
    BulkWriteError,
    DocumentTooLarge,
    DuplicateKeyError,
    InvalidOperation,
    OperationFailure,
    WriteError,
)
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.results import BulkWriteResult, DeleteResult, InsertManyResult, InsertOneResult, UpdateResult
from pymongo.write_concern import WriteConcern

from tests.simulation.gate import Gate, alone
from tests.simulation.servers.documents import (
    MAX_BYTES,
    MISSING,
    Document,
    Refused,
    copied,
    matcher,
    normal,
    order_key,
    projector,
)
from tests.simulation.servers.mongo import (
    DUPLICATE_KEY,
    Mongo,
    Row,
    Table,
    compiled,
    interrupted,
    key_of,
    keys_of,
    prepared,
)
from tests.simulation.servers.pipelines import aggregated, ordered

T = TypeVar("T")
# Documents of a cursor's first answer.
_FIRST_BATCH = 101
_LATER_BATCH = 10_000
_NO_COLLECTION = 26


class Client:
    """Of one process. `w` is its write concern."""

    def __init__(self, server: Mongo, gate: Gate, *, w: int | str = "majority") -> None:
        self.server, self.gate = server, gate
        self.write_concern = WriteConcern(w)
        self.majority = w == "majority"

    def __getitem__(self, name: str) -> Database:
        return Database(self, name)

    def __getattr__(self, name: str) -> Database:
        if name.startswith("_"):
            raise AttributeError(name)
        return Database(self, name)

    def call(self, operation: str, request: Any, act: Callable[[], T], *, writes: bool = False) -> T:
        """Through the gate and the set. Raises what the driver does."""
        gate, server = self.gate, self.server
        gate.before("mongo", operation, request)
        with alone(gate):
            term = server.begin(gate)
            refused: Refused | None = None
            try:
                answer = act()
            except Refused as error:
                refused = error
            number = server.number
        if refused is not None:
            # A refusal may get lost, too.
            gate.after("mongo", operation, request)
            raise _error(refused, writes=writes) from None
        gate.after("mongo", operation, request)
        server.acknowledge(term, number, majority=self.majority and writes)
        return answer

    def drop_database(self, name: Any) -> None:
        database = name if isinstance(name, str) else name.name
        self.call("drop_database", database, lambda: self.server.drop(database), writes=True)

    def list_database_names(self) -> list[str]:
        return self.call("list_databases", {}, lambda: sorted(self.server.databases))

    def server_info(self) -> Document:
        return self.admin.command("buildInfo")

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


def _error(refused: Refused, *, writes: bool) -> OperationFailure:
    details = {"code": refused.code, "errmsg": refused.message, **refused.more}
    if refused.code == DUPLICATE_KEY:
        return DuplicateKeyError(refused.message, refused.code, details)
    return (WriteError if writes else OperationFailure)(refused.message, refused.code, details)


class Database:
    def __init__(self, client: Client, name: str) -> None:
        self.client, self.name = client, name

    def __getitem__(self, name: str) -> Collection:
        return Collection(self, name)

    def __getattr__(self, name: str) -> Collection:
        if name.startswith("_"):
            raise AttributeError(name)
        return Collection(self, name)

    def list_collection_names(self) -> list[str]:
        tables = self.client.server.databases
        return self.client.call("list_collections", {}, lambda: list(tables.get(self.name, ())))

    def aggregate(self, pipeline: Sequence[Mapping[str, Any]]) -> Iterator[Document]:
        def run() -> list[Document]:
            return aggregated(self.client.server.builds(), pipeline, lambda name: ())

        return iter(self.client.call("aggregate", pipeline, run))

    def command(self, command: str | Mapping[str, Any], value: Any = 1, **options: Any) -> Document:
        spec = {command: value, **options} if isinstance(command, str) else dict(command)
        name = next(iter(spec))
        return self.client.call(name, spec, lambda: self._run(name, spec))

    def _run(self, name: str, spec: Mapping[str, Any]) -> Document:
        act = _COMMANDS.get(name)
        if act is None:
            raise Refused(59, f"no such command: '{name}'")
        return {**act(self, spec), "ok": 1.0}

    def existing(self, name: str) -> Table:
        table = self.client.server.table(self.name, name)
        if table is None:
            raise Refused(_NO_COLLECTION, f"ns does not exist: {self.name}.{name}")
        return table

    def documents(self, name: str) -> list[Document]:
        table = self.client.server.table(self.name, name)
        return [] if table is None else [row.document for row in table.rows.values()]


def _hello(database: Database, spec: Mapping[str, Any]) -> Document:
    # To the millisecond, without a zone, as the driver decodes it.
    now = datetime.fromtimestamp(int(database.client.gate.now() * 1000) / 1000, UTC)
    return {"isWritablePrimary": True, "setName": "rs0", "localTime": now.replace(tzinfo=None)}


def _list_indexes(database: Database, spec: Mapping[str, Any]) -> Document:
    table = database.existing(spec["listIndexes"])
    first = {"v": 2, "key": {"_id": 1}, "name": "_id_"}
    batch = [first, *(index.listed() for index in table.indexes.values())]
    return {"cursor": {"id": 0, "ns": table.full_name, "firstBatch": copied(batch)}}


def _coll_mod(database: Database, spec: Mapping[str, Any]) -> Document:
    wanted = spec["index"]
    index = database.existing(spec["collMod"]).indexes.get(wanted["name"])
    if index is None:
        raise Refused(27, f"cannot find index {wanted['name']}")
    before = index.options.get("expireAfterSeconds")
    index.options["expireAfterSeconds"] = wanted["expireAfterSeconds"]
    return {"expireAfterSeconds_old": before, "expireAfterSeconds_new": wanted["expireAfterSeconds"]}


def _coll_stats(database: Database, spec: Mapping[str, Any]) -> Document:
    table = database.client.server.table(database.name, spec["collStats"])
    rows = [] if table is None else table.rows.values()
    size = sum(len(row.raw) for row in rows)
    return {"count": len(rows), "size": size, "storageSize": size, "totalIndexSize": 0, "totalSize": size}


def _aggregate(database: Database, spec: Mapping[str, Any]) -> Document:
    name = spec["aggregate"]
    pipeline = normal({"pipeline": spec["pipeline"]})["pipeline"]
    found = aggregated(database.documents(name), pipeline, database.documents)
    return {"cursor": {"id": 0, "ns": f"{database.name}.{name}", "firstBatch": found}}


_COMMANDS: Mapping[str, Callable[[Database, Mapping[str, Any]], Document]] = {
    "ping": lambda database, spec: {},
    "hello": _hello,
    "buildInfo": lambda database, spec: {"version": "8.0.0", "versionArray": [8, 0, 0, 0]},
    "killCursors": lambda database, spec: {"cursorsKilled": [], "cursorsNotFound": list(spec["cursors"])},
    "listIndexes": _list_indexes,
    "collMod": _coll_mod,
    "collStats": _coll_stats,
    "aggregate": _aggregate,
}


class Collection:
    def __init__(
        self,
        database: Database,
        name: str,
        *,
        read_preference: Any = None,
        read_concern: ReadConcern | None = None,
        write_concern: WriteConcern | None = None,
    ) -> None:
        self.database, self.name = database, name
        self.full_name = f"{database.name}.{name}"
        self.read_preference = read_preference or ReadPreference.PRIMARY
        self.read_concern = read_concern or ReadConcern()
        self.write_concern = write_concern or database.client.write_concern
        self._server = database.client.server

    def __bool__(self) -> bool:
        raise NotImplementedError("compare with None instead: collection is not None")

    def __getitem__(self, name: str) -> Collection:
        return Collection(self.database, f"{self.name}.{name}")

    def with_options(self, **options: Any) -> Collection:
        return Collection(self.database, self.name, **options)

    def _read(self, operation: str, request: Any, act: Callable[[Table], T], none: T) -> T:
        def of_table() -> T:
            table = self._server.table(self.database.name, self.name)
            return none if table is None else act(table)

        return self.database.client.call(operation, {"collection": self.name, "of": request}, of_table)

    def _write(self, operation: str, request: Any, act: Callable[[Table], T]) -> T:
        def on_table() -> T:
            return act(self._server.made_table(self.database.name, self.name))

        request = {"collection": self.name, "of": request}
        return self.database.client.call(operation, request, on_table, writes=True)

    # Reading.

    def find(
        self,
        filter: Mapping[str, Any] | None = None,
        projection: Any = None,
        skip: int = 0,
        limit: int = 0,
        sort: Any = None,
        batch_size: int = 0,
        **options: Any,
    ) -> Cursor:
        return Cursor(
            self, filter or {}, projection, skip=skip, limit=limit, sort=sort, batch_size=batch_size
        )

    def find_one(self, filter: Any = None, projection: Any = None, **options: Any) -> Document | None:
        query = filter if filter is None or isinstance(filter, Mapping) else {"_id": filter}
        if options or projection is not None:
            return next(self.find(query, projection, **{**options, "limit": -1}), None)
        wanted = normal(query or {})

        def one(table: Table) -> Document | None:
            row = table.first(wanted)
            return None if row is None else bson.decode(row.raw)

        return self._read("find", query, one, None)

    def count_documents(self, filter: Mapping[str, Any], **options: Any) -> int:
        query = normal(filter)
        found = self._read("count_documents", filter, lambda table: sum(1 for _ in table.find(query)), 0)
        return min(found, options.get("limit") or found)

    def estimated_document_count(self, **options: Any) -> int:
        return self._read("count", {}, lambda table: len(table.rows), 0)

    def distinct(self, key: str, filter: Mapping[str, Any] | None = None, **options: Any) -> list[Any]:
        query = normal(filter or {})

        def values(table: Table) -> list[Any]:
            found = {}
            for row in table.find(query):
                value: Any = row.document
                for name in key.split("."):
                    value = value.get(name, MISSING) if type(value) is dict else MISSING
                for each in value if type(value) is list else (value,):
                    if each is not MISSING:
                        found[order_key(each)] = each
            return [copied(found[each]) for each in sorted(found)]

        return self._read("distinct", filter, values, [])

    def aggregate(self, pipeline: Sequence[Mapping[str, Any]], **options: Any) -> Iterator[Document]:
        stages = normal({"pipeline": list(pipeline)})["pipeline"]
        found = self.database.client.call(
            "aggregate",
            {"collection": self.name, "of": pipeline},
            lambda: aggregated(self.database.documents(self.name), stages, self.database.documents),
        )
        return iter(found)

    # Writing.

    def insert_one(self, document: Any, **options: Any) -> InsertOneResult:
        made, raw = _fitting(document)
        identity = self._write("insert_one", document, lambda table: table.insert(made, raw))
        return InsertOneResult(identity, True)

    def insert_many(self, documents: Sequence[Any], ordered: bool = True, **options: Any) -> InsertManyResult:
        if not documents:
            raise TypeError("documents must be a non-empty list")
        self._bulk("insert_many", [InsertOne(document) for document in documents], ordered)
        return InsertManyResult([document["_id"] for document in documents], True)

    def update_one(self, filter: Any, update: Any, upsert: bool = False, **options: Any) -> UpdateResult:
        return self._update("update_one", filter, update, upsert=upsert, many=False)

    def update_many(self, filter: Any, update: Any, upsert: bool = False, **options: Any) -> UpdateResult:
        return self._update("update_many", filter, update, upsert=upsert, many=True)

    def _update(self, operation: str, filter: Any, update: Any, *, upsert: bool, many: bool) -> UpdateResult:
        query = normal(filter)
        found = self._write(
            operation,
            (filter, update),
            lambda table: table.update(query, compiled(update), upsert=upsert, many=many),
        )
        return _update_result(found)

    def replace_one(
        self, filter: Any, replacement: Any, upsert: bool = False, **options: Any
    ) -> UpdateResult:
        query, document = normal(filter), normal(replacement)
        found = self._write(
            "replace_one", (filter, replacement), lambda table: table.replace(query, document, upsert=upsert)
        )
        return _update_result(found)

    def delete_one(self, filter: Any, **options: Any) -> DeleteResult:
        query = normal(filter)
        number = self._write("delete_one", filter, lambda table: table.delete(query, many=False))
        return DeleteResult({"n": number}, True)

    def delete_many(self, filter: Any, **options: Any) -> DeleteResult:
        query = normal(filter)
        number = self._write("delete_many", filter, lambda table: table.delete(query, many=True))
        return DeleteResult({"n": number}, True)

    def find_one_and_delete(self, filter: Any, projection: Any = None, **options: Any) -> Document | None:
        return self._find_and(
            "find_one_and_delete",
            filter,
            projection,
            options,
            lambda table, query: table.delete(query, many=False),
        )

    def find_one_and_update(
        self, filter: Any, update: Any, projection: Any = None, upsert: bool = False, **options: Any
    ) -> Document | None:
        return self._find_and(
            "find_one_and_update",
            filter,
            projection,
            options,
            lambda table, query: table.update(query, compiled(update), upsert=upsert, many=False),
        )

    def _find_and(
        self,
        operation: str,
        filter: Any,
        projection: Any,
        options: Mapping[str, Any],
        act: Callable[[Table, Document], Any],
    ) -> Document | None:
        query, project = normal(filter), projector(projection)

        def find_and(table: Table) -> Document | None:
            rows = _sorted(table.find(query), options.get("sort"))
            before = rows[0].document if rows else None
            acted = act(table, query if before is None else {"_id": before["_id"]})
            found = before
            if options.get("return_document"):
                identity = before["_id"] if before is not None else acted.upserted
                row = table.rows.get(key_of(identity))
                found = None if row is None else row.document
            if found is None:
                return None
            return project(found) if project else bson.decode(bson.encode(found))

        return self._write(operation, filter, find_and)

    def bulk_write(self, requests: Sequence[Any], ordered: bool = True, **options: Any) -> BulkWriteResult:
        return self._bulk("bulk_write", requests, ordered)

    def _bulk(self, operation: str, requests: Sequence[Any], ordered: bool) -> BulkWriteResult:
        if not requests:
            raise InvalidOperation("No operations to execute")
        acts = [_act(request) for request in requests]
        done: Document = {
            "writeErrors": [],
            "writeConcernErrors": [],
            **dict.fromkeys(("nInserted", "nUpserted", "nMatched", "nModified", "nRemoved"), 0),
            "upserted": [],
        }
        gate = self.database.client.gate

        def run(table: Table) -> None:
            skipped = gate.fails("mongo", operation, len(acts))
            for index, act in enumerate(acts):
                try:
                    if index in skipped:
                        error = interrupted(index)
                    else:
                        act(table, index, done)
                        continue
                except Refused as refused:
                    error = {"index": index, "code": refused.code, "errmsg": refused.message, **refused.more}
                done["writeErrors"].append({**error, "op": _shown(requests[index])})
                if ordered:
                    return

        self._write(operation, requests, run)
        if done["writeErrors"]:
            raise BulkWriteError(done)
        return BulkWriteResult(done, True)

    # Indexes and collections.

    def create_index(self, keys: Any, **options: Any) -> str:
        return self._write("create_indexes", keys, lambda table: table.create_index(keys_of(keys), options))

    def create_indexes(self, indexes: Sequence[Any], **options: Any) -> list[str]:
        def create(table: Table) -> list[str]:
            specs = [dict(index.document) for index in indexes]
            return [table.create_index(keys_of(spec.pop("key")), spec) for spec in specs]

        # Not a write for the driver: its errors are those of a command.
        server = self._server
        return self.database.client.call(
            "create_indexes",
            {"collection": self.name, "of": indexes},
            lambda: create(server.made_table(self.database.name, self.name)),
        )

    def drop_index(self, name: str) -> None:
        def drop(table: Table) -> None:
            if table.indexes.pop(name, None) is None:
                raise Refused(27, f"index not found with name [{name}]")

        self._write("drop_index", name, drop)

    def index_information(self) -> Document:
        def listed(table: Table) -> Document:
            found: Document = {"_id_": {"v": 2, "key": [("_id", 1)]}}
            for index in table.indexes.values():
                found[index.name] = {"v": 2, "key": list(index.keys), **copied(index.options)}
            return found

        return self._read("list_indexes", {}, listed, {})

    def drop(self) -> None:
        def drop() -> None:
            self._server.drop(self.database.name, self.name)

        self.database.client.call("drop", {"collection": self.name}, drop, writes=True)


def _fitting(document: Any) -> tuple[Document, bytes]:
    made, raw = prepared(document)
    if len(raw) > MAX_BYTES:
        raise DocumentTooLarge(
            f"BSON document too large ({len(raw)} bytes) - supports up to {MAX_BYTES} bytes."
        )
    return made, raw


def _update_result(found: Any) -> UpdateResult:
    raw: Document = {"n": found.matched, "nModified": found.modified, "ok": 1.0}
    if found.upserted is not None:
        raw |= {"n": 1, "upserted": found.upserted}
    return UpdateResult(raw, True)


_Act = Callable[[Table, int, Document], None]


def _act(request: Any) -> _Act:
    """One operation of a bulk on its table, which counts into the result. Raises what the driver does."""
    if isinstance(request, InsertOne):
        made, raw = _fitting(request._doc)

        def insert(table: Table, index: int, done: Document) -> None:
            table.insert(made, raw)
            done["nInserted"] += 1

        return insert
    query = normal(request._filter)
    if isinstance(request, UpdateOne | UpdateMany):
        upsert, many = bool(request._upsert), isinstance(request, UpdateMany)
        try:
            update = compiled(request._doc)
        except Refused as refused:
            return _refusing(refused)
        return _counting(lambda table: table.update(query, update, upsert=upsert, many=many))
    if isinstance(request, ReplaceOne):
        document, upsert = normal(request._doc), bool(request._upsert)
        return _counting(lambda table: table.replace(query, document, upsert=upsert))
    if isinstance(request, DeleteOne | DeleteMany):
        many = isinstance(request, DeleteMany)

        def delete(table: Table, index: int, done: Document) -> None:
            done["nRemoved"] += table.delete(query, many=many)

        return delete
    raise TypeError(f"{request!r} is not a valid request")


def _refusing(refused: Refused) -> _Act:
    def refuse(table: Table, index: int, done: Document) -> None:
        raise refused

    return refuse


def _counting(update: Callable[[Table], Any]) -> _Act:
    def act(table: Table, index: int, done: Document) -> None:
        matched, modified, upserted = update(table)
        done["nMatched"] += matched
        done["nModified"] += modified
        if upserted is not None:
            done["nUpserted"] += 1
            done["upserted"].append({"index": index, "_id": upserted})

    return act


def _shown(request: Any) -> Any:
    """The operation in a write error, as the driver shows it."""
    if isinstance(request, InsertOne):
        return request._doc
    if isinstance(request, DeleteOne | DeleteMany):
        return {"q": request._filter, "limit": int(isinstance(request, DeleteOne))}
    many = isinstance(request, UpdateMany)
    return {"q": request._filter, "u": request._doc, "multi": many, "upsert": bool(request._upsert)}


def _sorted(rows: Iterator[Row], order: Any) -> list[Row]:
    found = list(rows)
    if not order or len(found) < 2:
        return found
    by_identity = {id(row.document): row for row in found}
    return [by_identity[id(each)] for each in ordered((row.document for row in found), keys_of(order))]


class Cursor:
    """Finds the documents at its first use, and reads each batch when it is asked for: one that was changed or removed
    meanwhile comes as it is then, or not at all.
    """

    def __init__(
        self, collection: Collection, query: Mapping[str, Any], projection: Any, *, skip: int, limit: int, sort: Any,
        batch_size: int,
    ) -> None:  # fmt: skip
        self.collection = collection
        self._query, self._projection = query, projection
        self._skip, self._limit, self._order, self._batch_size = skip, limit, sort, batch_size
        self._batches: Iterator[list[Document]] | None = None
        self._batch: Iterator[Document] = iter(())
        self.alive = True

    def sort(self, keys: Any, direction: int | None = None) -> Self:
        self._order = keys if direction is None else [(keys, direction)]
        return self

    def limit(self, number: int) -> Self:
        self._limit = number
        return self

    def skip(self, number: int) -> Self:
        self._skip = number
        return self

    def batch_size(self, number: int) -> Self:
        self._batch_size = number
        return self

    def hint(self, index: Any) -> Self:
        return self

    def close(self) -> None:
        self._batches, self._batch, self.alive = iter(()), iter(()), False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def next(self) -> Document:
        return self.__next__()

    def __next__(self) -> Document:
        while True:
            for document in self._batch:
                return document
            if not self.alive:
                raise StopIteration
            if self._batches is None:
                self._batches = self._read()
            try:
                batch = next(self._batches, None)
            except BaseException:
                # A cursor that failed once is at its end.
                self.alive = False
                raise
            if batch is None:
                self.alive = False
                raise StopIteration
            self._batch = iter(batch)

    def _read(self) -> Iterator[list[Document]]:
        query, project, read = normal(self._query), projector(self._projection), self.collection._read
        size = self._batch_size or _FIRST_BATCH

        def copy(row: Row) -> Document:
            return bson.decode(row.raw) if project is None else project(row.document)

        def first(table: Table) -> tuple[list[Document], list[Any]]:
            rows = _sorted(table.find(query), self._order)
            end = self._skip + abs(self._limit) if self._limit else None
            rows = rows[self._skip : end]
            if self._limit:
                # The rest of what has a limit comes in the same answer, up to 16 MB.
                return [copy(row) for row in rows], []
            return [copy(row) for row in rows[:size]], [key_of(row.document["_id"]) for row in rows[size:]]

        batch, left = read("find", self._query, first, ([], []))
        yield batch
        matches, keys = matcher(query), iter(left)
        later = self._batch_size or _LATER_BATCH
        while wanted := list(islice(keys, later)):

            def more(table: Table, wanted: Sequence[Any] = wanted) -> list[Document]:
                rows = (table.rows.get(key) for key in wanted)
                return [copy(row) for row in rows if row is not None and matches(row.document)]

            yield read("getMore", self._query, more, [])
