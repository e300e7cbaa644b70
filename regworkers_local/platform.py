"""A stub of the platform that owns the fans' confirmations: it follows `entry.logged`, reads what is secret beside
the entry, and writes what it would mail to the fan.

The event says where the entry is in its campaign's tree. The salt, without which a fan cannot show that, is only in
MongoDB; so an entry that was removed meanwhile gets no confirmation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson

from regworkers_core.adapters.files import in_batches
from regworkers_core.adapters.kafka.log import Partition, Span
from regworkers_core.domain.events import EventType
from regworkers_core.domain.keys import EntryKey
from regworkers_core.runtime import Runtime
from regworkers_core.selection.registrations.opening import confirmation_of

_READ_TOGETHER = 500


class Platform:
    """Writes the confirmations of one environment into `folder`, one file for each entry, by its id."""

    def __init__(self, runtime: Runtime, folder: Path) -> None:
        self._runtime, self._folder = runtime, folder
        self._read: dict[Partition, int] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def confirm(self) -> int:
        """Confirm what was logged since the last call. Returns the number of new confirmations; a repeated event makes
        none. Raises TransientFailure when Kafka or MongoDB does not answer.
        """
        written = 0
        for keys in in_batches(dict.fromkeys(self._logged()), _READ_TOGETHER):
            for key, registrant in self._runtime.registrations.get(keys).items():
                made, path = confirmation_of(registrant), self.path(key)
                data = made and made.to_bytes()
                if data and not (path.exists() and path.read_bytes() == data):
                    path.write_bytes(data)
                    written += 1
        return written

    def path(self, key: EntryKey) -> Path:
        """The file of an entry's confirmation. An id may hold any characters, so its name is in hex."""
        return self._folder / f"{key.campaign_id}-{key.entry_id.encode().hex()}.json"

    def _logged(self) -> Iterator[EntryKey]:
        with self._runtime.kafka_log("platform") as log:
            known = log.partitions([self._runtime.names.topic("entries")])
            bounds = log.bounds([each for partitions in known.values() for each in partitions])
            spans = {each: Span(self._read.get(each, at.start), at.end) for each, at in bounds.items()}
            for chunk in log.read(spans):
                yield from _entries([record.value for record in chunk.records])
                self._read |= chunk.positions


def _entries(values: Sequence[bytes | None]) -> Iterator[EntryKey]:
    for value in values:
        event = orjson.loads(value or b"{}")
        if event.get("type") == EventType.ENTRY_LOGGED.value:
            yield EntryKey(event["data"]["campaignId"], event["data"]["entryId"])
