"""How large Dagster's own storage is, and giving back what deleted runs have left of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

SQLITE = "sqlite"
# What each storage calls the one of its databases that does not belong to a single run.
_CONNECTIONS: Mapping[str, tuple[str, str]] = {
    "runs": ("run_storage", "connect"),
    "events": ("event_log_storage", "index_connection"),
    "schedules": ("schedule_storage", "connect"),
}


@dataclass(frozen=True, slots=True)
class StorageSize:
    """Bytes by database; on a server all of them are in one, which `database` names."""

    bytes: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.bytes.values())


def storage_size(instance: dg.DagsterInstance) -> StorageSize:
    """Of what the instance keeps; a kind of storage that does not say is left out."""
    found: dict[str, int] = {}
    for name, connection in _connections(instance):
        with connection as connected:
            dialect = connected.engine.dialect.name
            if dialect == SQLITE:
                found[name] = _number(connected, "PRAGMA page_count") * _number(connected, "PRAGMA page_size")
            elif dialect == "postgresql":
                found["database"] = _number(connected, "SELECT pg_database_size(current_database())")
    shards = _shards(instance)
    if shards is not None:
        found["events of runs"] = sum(path.stat().st_size for path in shards.glob("*") if path.is_file())
        found["events of runs"] -= sum(
            path.stat().st_size for path in shards.glob("index.db*") if path.is_file()
        )
    return StorageSize(found)


def give_back(instance: dg.DagsterInstance) -> list[str]:
    """Have SQLite shrink its files (VACUUM), which it does not do by itself; returns what could not be shrunk, a line
    each. Servers such as PostgreSQL do that by themselves.
    """
    refused = []
    for name, connection in _connections(instance):
        with connection as connected:
            if connected.engine.dialect.name != SQLITE:
                continue
            engine = connected.engine
        try:
            # Outside of a transaction, on a connection of its own.
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as alone:
                alone.execute(sqlalchemy.text("VACUUM"))
        except OperationalError:
            refused.append(f"{name}: others are writing, so it was not shrunk; the next night tries again")
    return refused


def _connections(instance: dg.DagsterInstance) -> Iterator[tuple[str, AbstractContextManager[Connection]]]:
    for name, (storage, connect) in _CONNECTIONS.items():
        make: Any = getattr(getattr(instance, storage, None), connect, None)
        if make is not None:
            yield name, make()


def _shards(instance: dg.DagsterInstance) -> Path | None:
    """The folder of SQLite's files of single runs, None for other storages."""
    path: Any = getattr(instance.event_log_storage, "path_for_shard", None)
    return None if path is None else Path(path("any")).parent


def _number(connection: Connection, statement: str) -> int:
    return int(connection.execute(sqlalchemy.text(statement)).scalar() or 0)
