"""A MongoDB that knows indexes only, and refuses them with MongoDB's codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

from pymongo import IndexModel
from pymongo.errors import AutoReconnect, OperationFailure

from regworkers_core.adapters.mongo.client import classify_mongo
from regworkers_core.runtime import Runtime
from tests.adapters.fakes import dependency

Document = dict[str, Any]


class FakeIndexes:
    """`indexes` and `documents` by collection. `commands` are the DDL commands that it was sent, in order. `building`
    has indexes that are listed with the id of their build for a number of listings; `lose` is how many commands lose
    their connection, after which the server goes on alone.
    """

    def __init__(self, **indexes: Sequence[Document]) -> None:
        self.indexes: dict[str, list[Document]] = {name: list(rows) for name, rows in indexes.items()}
        self.documents: dict[str, list[Document]] = {}
        self.commands: list[str] = []
        self.building: dict[str, int] = {}
        self.lose = 0
        self.name = "db"
        self.client = self.admin = self

    @property
    def runtime(self) -> Runtime:
        settings = SimpleNamespace(mongo=None)
        guard = dependency("mongo", classify_mongo)
        made: Any = SimpleNamespace(database=self, settings=settings, dependency=lambda _name: guard)
        return cast(Runtime, made)

    def __getitem__(self, name: str) -> Any:
        return self if name == self.name else _Collection(self, name)

    def close(self) -> None: ...

    def aggregate(self, pipeline: Sequence[Mapping[str, Any]]) -> list[Document]:
        assert "$currentOp" in pipeline[0]
        return [{"progress": {"done": 1234, "total": 5678}}]

    def command(self, name: str, collection: str, **arguments: Any) -> Document:
        rows = self.indexes.get(collection)
        if name == "collMod":
            self.commands.append(f"collMod {collection}.{arguments['index']['name']}")
            changed = next(row for row in rows or () if row["name"] == arguments["index"]["name"])
            changed["expireAfterSeconds"] = arguments["index"]["expireAfterSeconds"]
            return {}
        assert name == "listIndexes" and arguments == {"includeBuildUUIDs": True}
        if rows is None:
            raise OperationFailure("ns does not exist", 26)
        listed = [
            {"spec": row, "buildUUID": "1"} if self.building.get(row["name"]) else dict(row) for row in rows
        ]
        self.building = {name: left - 1 for name, left in self.building.items() if left > 1}
        return {"cursor": {"firstBatch": listed}}


class _Collection:
    def __init__(self, server: FakeIndexes, name: str) -> None:
        self.server, self.name = server, name
        self.database, self.full_name = server, f"db.{name}"

    def create_indexes(self, models: Sequence[IndexModel]) -> None:
        wanted = [dict(model.document) | {"key": dict(model.document["key"])} for model in models]
        self.server.commands.append(f"createIndexes {self.name} {[each['name'] for each in wanted]}")
        rows = self.server.indexes.setdefault(self.name, [])
        for each in wanted:
            for row in rows:
                if row["name"] == each["name"] and row != each:
                    raise OperationFailure("an existing index has the same name", 86)
                if row["key"] == each["key"] and row != each:
                    raise OperationFailure("exists with another name or options", 85)
            values = [
                tuple(document.get(field) for field in each["key"])
                for document in self.server.documents.get(self.name, ())
            ]
            if each.get("unique") and len(set(values)) < len(values):
                raise OperationFailure("E11000 duplicate key error", 11000)
        rows.extend(each for each in wanted if each not in rows)
        if self.server.lose:
            self.server.lose -= 1
            self.server.building.update((each["name"], 2) for each in wanted)
            raise AutoReconnect("connection closed")

    def drop_index(self, name: str) -> None:
        self.server.commands.append(f"dropIndexes {self.name}.{name}")
        rows = self.server.indexes[self.name]
        rows[:] = [row for row in rows if row["name"] != name]

    def aggregate(self, pipeline: Sequence[Mapping[str, Any]]) -> list[Document]:
        group = pipeline[0]["$group"]["_id"]
        if isinstance(group, dict):
            # No test has duplicates of several fields.
            return []
        field = group.removeprefix("$")
        values = [document.get(field) for document in self.server.documents.get(self.name, ())]
        return [{"_id": value} for value in dict.fromkeys(values) if values.count(value) > 1]

    def find(self, query: Document, *_fields: Any, **_options: Any) -> list[Document]:
        ((field, value),) = query.items()
        rows = self.server.documents.get(self.name, ())
        return [document for document in rows if document.get(field) == value]
