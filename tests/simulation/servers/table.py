"""A table of the simulated DynamoDB: its items by partition and sort key."""

from __future__ import annotations

import zlib
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from typing import Any

from tests.simulation.servers.streams import Stream
from tests.simulation.servers.values import Item, Value, invalid, text_bytes

_KEY_BYTES = (2048, 1024)
NOTHING: Mapping[str, Any] = {}

Key = tuple[str, str]
# An item and its size.
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
            text = values.get(name, NOTHING).get("S")
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
        row = self.partitions.get(key[0], NOTHING).get(key[1])
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
