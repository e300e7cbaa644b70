"""The scratch database of a drill: beside the real one, under a name of its own, dropped when the drill ends."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from regworkers_core.adapters.mongo.store import Documents
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.engine.dependency import Dependency
from regworkers_core.runtime import Runtime

_STAMP = "%Y%m%d%H%M%S"
_OF_A_DRILL = re.compile(r"drill-(\d{14})")
_ENTRIES = "entries"


class Scratch:
    """One scratch database of this environment. Every method raises TransientFailure when MongoDB cannot answer."""

    def __init__(self, runtime: Runtime, name: str = "") -> None:
        """`name` is that of a database which an earlier drill left. Raises UsageError for any other database."""
        self._runtime = runtime
        self.name = (
            name or f"{runtime.names.prefix}drill-{datetime.fromtimestamp(runtime.clock(), UTC):{_STAMP}}"
        )
        if _made_at(runtime, self.name) is None or self.name == runtime.database.name:
            raise UsageError(
                f"{self.name} is not a scratch database of a drill: it was neither filled nor dropped"
            )

    def make(self) -> Documents:
        """Create the empty collection of entries with the indexes of the real one. Raises UsageError if the database
        exists.
        """
        if self.name in _databases(self._runtime):
            raise UsageError(f"the scratch database {self.name} exists: another drill is at work")
        real, scratch = self._runtime.database[_ENTRIES], self._runtime.mongo[self.name][_ENTRIES]
        indexes = _dependency(self._runtime).call(real.index_information)
        for index in indexes.values():
            keys: Sequence[tuple[str, int]] = list(index["key"])
            if [name for name, _ in keys] != ["_id"]:
                options = {name: index[name] for name in ("unique", "sparse") if index.get(name)}
                _dependency(self._runtime).call(scratch.create_index, keys, **options)
        return scratch

    def count(self, key: EntryKey) -> int:
        """How many rows of an entry there are: 0 or 1."""
        entries = self._runtime.mongo[self.name][_ENTRIES]
        return int(_dependency(self._runtime).call(entries.count_documents, {"_id": key.document_id}))

    def forget(self, key: EntryKey) -> int:
        """Delete an erased entry; how many there were."""
        entries = self._runtime.mongo[self.name][_ENTRIES]
        return int(
            _dependency(self._runtime).call(entries.delete_one, {"_id": key.document_id}).deleted_count
        )

    def drop(self) -> None:
        """Idempotent."""
        _dependency(self._runtime).call(self._runtime.mongo.drop_database, self.name)

    def drop_quietly(self) -> bool:
        """False when it could not be dropped: retention drops it later."""
        try:
            self.drop()
        except Failure:
            return False
        return True


def left_behind(runtime: Runtime, *, older_than_seconds: float) -> Iterator[Scratch]:
    """Scratch databases of drills that were killed. Raises TransientFailure."""
    for name in sorted(_databases(runtime)):
        made_at = _made_at(runtime, name)
        if made_at is not None and made_at <= runtime.clock() - older_than_seconds:
            yield Scratch(runtime, name)


def _made_at(runtime: Runtime, name: str) -> float | None:
    """When a drill of this environment made it, in epoch seconds; None for any other database."""
    found = _OF_A_DRILL.fullmatch(name.removeprefix(runtime.names.prefix))
    if not name.startswith(runtime.names.prefix) or found is None:
        return None
    try:
        return datetime.strptime(found[1], _STAMP).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _databases(runtime: Runtime) -> list[str]:
    names: list[str] = _dependency(runtime).call(runtime.mongo.list_database_names)
    return names


def _dependency(runtime: Runtime) -> Dependency:
    return runtime.dependency("mongo")
