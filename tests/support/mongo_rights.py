"""A guard over the suite's commands to MongoDB: while a job or a sensor of Dagster runs, it does only what the user of
its role may do (deploy/mongodb-roles.json).
"""

from __future__ import annotations

import json
import threading
from typing import Any

from pymongo import monitoring

from regworkers_core.settings import PROJECT_ROOT
from tests.support import least_privilege

READS = frozenset({"aggregate", "collStats", "count", "distinct", "find", "getMore", "listIndexes"})
# A `findAndModify` may remove.
APPENDS = frozenset({"insert", "update"})
WRITES = APPENDS | {"delete", "findAndModify"}
# Its user has MongoDB's own roles for the whole database.
PROVISION = "provision"
# A recovery drill makes a database of its own: docs/security.md has what its user needs.
_OF_A_DRILL = frozenset({"createIndexes", "dropDatabase", "listDatabases"})
# Any user may do these.
_FREE = frozenset({"abortTransaction", "commitTransaction", "endSessions", "hello", "killCursors", "ping"})
# By role: the collections that it reads and writes, and those that it only reads.
RIGHTS: dict[str, dict[str, list[str]]] = json.loads(
    (PROJECT_ROOT / "deploy" / "mongodb-roles.json").read_text(encoding="utf-8")
)


class MongoGuard(monitoring.CommandListener):
    """Notes commands that the role of the running job may not send. A driver calls it in the thread that sends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._broken: set[str] = set()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        role = least_privilege.role_of_the_job()
        name = event.command_name
        if not role or name in _FREE | _OF_A_DRILL:
            return
        collection = event.command.get("collection" if name == "getMore" else name)
        kind = "reads" if name in READS else "writes" if name in WRITES else name
        if name in APPENDS and str(collection) in RIGHTS.get(role, {}).get("append", []):
            return
        with self._lock:
            if not allowed(role, kind, str(collection)):
                self._broken.add(f"{role} {kind} {collection}")

    def succeeded(self, event: Any) -> None:
        """Nothing to note."""

    def failed(self, event: Any) -> None:
        """Nothing to note."""

    def taken(self) -> set[str]:
        """What was broken since the last time."""
        with self._lock:
            broken, self._broken = self._broken, set()
        return broken


def allowed(role: str, kind: str, collection: str) -> bool:
    if role == PROVISION:
        return True
    rights = RIGHTS.get(role, {})
    return (kind in ("reads", "writes") and collection in rights.get("readWrite", [])) or (
        kind == "reads" and collection in (*rights.get("read", []), *rights.get("append", []))
    )


GUARD = MongoGuard()


def install() -> None:
    """Every client that is made from here on is watched."""
    monitoring.register(GUARD)
