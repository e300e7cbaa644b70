"""Entries in the DynamoDB demand table: consistent reads, conditional clearing of the flag, scans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from regworkers_core.adapters.aws.tables import (
    CHANGED,
    MAX_GET,
    MAX_STATEMENTS,
    TableClient,
    attribute,
    key_of,
    plain_item,
)
from regworkers_core.domain.entry import ORDER_FIELDS, Entry
from regworkers_core.domain.keys import CAMPAIGN_PREFIX, ENTRY_PREFIX, SK_BYTES, EntryKey, encodable
from regworkers_core.domain.reasons import ItemFailure, TransientFailure
from regworkers_core.engine.dependency import retry_parts


@dataclass(frozen=True, slots=True)
class TablePage:
    """A page of a scan."""

    items: list[tuple[EntryKey, dict[str, Any]]]  # as plain Python values
    next_key: dict[str, Any] | None  # None at the end
    scanned: int  # items that were read, left out ones included
    units: float = 0.0  # read units that it took, as far as DynamoDB says so


class Cleared(NamedTuple):
    """Entries that were not cleared: those that changed or disappeared since the read, and others with their failure,
    such as an ItemFailure for one that the three fields would make too large.
    """

    changed: list[Entry]
    failed: list[tuple[Entry, ItemFailure | TransientFailure]]


# Behind every sort key, and how many items of others one read passes over.
_LAST_SK = "\U0010ffff" * (SK_BYTES // 4)
_MOST_FOREIGN = 1000


def _range(campaign_id: str, first: str, end: str | None) -> dict[str, Any]:
    """The condition of a query on the entries of a campaign from the id `first` to `end`, both included."""
    # Without an end up to what follows the prefix, which is no entry's key.
    last = ENTRY_PREFIX[:-1] + chr(ord(ENTRY_PREFIX[-1]) + 1) if end is None else ENTRY_PREFIX + end
    values = {":pk": EntryKey(campaign_id, "").pk, ":first": ENTRY_PREFIX + first, ":last": last}
    return {
        "KeyConditionExpression": "PK = :pk AND SK BETWEEN :first AND :last",
        "ExpressionAttributeValues": {name: {"S": text} for name, text in values.items()},
    }


class DemandTable(TableClient):
    def get(self, keys: Sequence[EntryKey], *, consistent: bool = True) -> dict[EntryKey, dict[str, Any]]:
        """Reads of distinct keys; those that do not exist, or cannot, are absent from the result. A read that is not
        consistent costs half as much.
        """
        found: dict[EntryKey, dict[str, Any]] = {}
        # DynamoDB would refuse the whole call for a key that is too long.
        wanted = [(key.pk, key.sk) for key in keys if key.can_be_in_table]
        for start in range(0, len(wanted), MAX_GET):
            for item in map(
                plain_item, self._get_some(wanted[start : start + MAX_GET], consistent=consistent)
            ):
                key = EntryKey.parse(item["PK"], item["SK"])
                if key is not None:
                    found[key] = item
        return found

    def clear_flags(self, entries: Sequence[Entry], replicated_at: str) -> Cleared:
        """Set `needsReplication=false`, `replicatedVersion` and `replicatedAt` on each entry whose
        `createdAt`, `version` and `updatedAt` are still as read; never creates an item.

        Repeats throttled statements with backoff. Never raises TransientFailure, because other entries are cleared by
        then; raises UsageError where access is refused or the table is missing.
        """
        cleared = Cleared([], [])
        # The failure of each remaining entry at the last attempt.
        busy: dict[EntryKey, TransientFailure] = {}

        def ask(pending: Sequence[Entry]) -> list[Entry]:
            left: list[Entry] = []
            for start in range(0, len(pending), MAX_STATEMENTS):
                left += self._clear_some(
                    pending[start : start + MAX_STATEMENTS], replicated_at, cleared, busy
                )
            return left

        left = retry_parts(entries, ask, self._policy, self._sleep)
        cleared.failed.extend((entry, busy[entry.key]) for entry in left)
        return cleared

    def _clear_some(
        self,
        entries: Sequence[Entry],
        replicated_at: str,
        cleared: Cleared,
        busy: dict[EntryKey, TransientFailure],
    ) -> list[Entry]:
        """Make one call. Returns the entries for which it should be repeated."""
        statements = [self._clear_statement(entry, replicated_at) for entry in entries]
        try:
            answer = self._call(self._client.batch_execute_statement, Statements=statements)
        except TransientFailure as failure:
            # The policy's retries are used up.
            cleared.failed.extend((entry, failure) for entry in entries)
            return []
        left: list[Entry] = []
        throttled = 0
        for entry, response in zip(entries, answer["Responses"], strict=True):
            code, refusal = self._statement_outcome(response)
            if code == CHANGED:
                cleared.changed.append(entry)
            elif refusal is not None:
                throttled += refusal.throttled
                busy[entry.key] = refusal
                left.append(entry)
            elif code:
                cleared.failed.append((entry, ItemFailure(f"the flag cannot be cleared: {code}")))
        self._dependency.note_parts(served=len(entries) - len(left), throttled=throttled)
        return left

    def _clear_statement(self, entry: Entry, replicated_at: str) -> dict[str, Any]:
        conditions, values = [], [entry.order.version, replicated_at, entry.key.pk, entry.key.sk]
        for name in ORDER_FIELDS:
            if name in entry.order_as_read:
                conditions.append(f'"{name}"=?')
                values.append(entry.order_as_read[name])
            else:
                conditions.append(f'"{name}" IS MISSING')
        return {
            "Statement": f'UPDATE "{self.table}" SET needsReplication=false SET replicatedVersion=?'
            f" SET replicatedAt=? WHERE PK=? AND SK=? AND {' AND '.join(conditions)}",
            "Parameters": [attribute(value) for value in values],
        }

    def remove(self, key: EntryKey, item: Mapping[str, Any]) -> bool:
        """Delete an entry whose `createdAt`, `version` and `updatedAt` are still those of `item`; False if they are
        not, or it does not exist. A field that is neither a text nor a 64-bit integer only has to exist: it was not
        read exactly (a number as the nearest float, a set as a list), so it would never compare as equal.
        """
        values = {
            name: attribute(item[name]) for name in ORDER_FIELDS if isinstance(item.get(name), str | int)
        }
        conditions = [
            f"#{name} = :{name}"
            if name in values
            else f"{'attribute_exists' if name in item else 'attribute_not_exists'}(#{name})"
            for name in ORDER_FIELDS
        ]
        given = {f":{name}": value for name, value in values.items()}
        return self._conditional(
            self._client.delete_item,
            TableName=self.table,
            Key=key_of(key.pk, key.sk),
            ConditionExpression=" AND ".join(["attribute_exists(PK)", *conditions]),
            ExpressionAttributeNames={f"#{name}": name for name in ORDER_FIELDS},
            **{"ExpressionAttributeValues": given} if given else {},
        )

    def scan(
        self,
        segment: int,
        segments: int,
        start_key: Mapping[str, Any] | None = None,
        limit: int | None = None,
        since: str = "",
    ) -> TablePage:
        """One page (at most 1 MB) of entries of one segment of a parallel, consistent scan; of those only that have an
        `updatedAt` from `since` on, if it is given, which costs as many read units.
        """
        arguments: dict[str, Any] = {"Segment": segment, "TotalSegments": segments, "ConsistentRead": True}
        return self._page(self._client.scan, arguments, start_key, limit, since)

    def query(
        self,
        campaign_id: str,
        start_key: Mapping[str, Any] | None = None,
        limit: int | None = None,
        since: str = "",
    ) -> TablePage:
        """One page of the entries of one campaign, by a consistent query on its partition; `since` as in `scan`."""
        arguments = _range(campaign_id, "", None) | {"ConsistentRead": True}
        return self._page(self._client.query, arguments, start_key, limit, since)

    def entries(
        self, campaign_id: str, first: str = "", end: str | None = None, since: str = ""
    ) -> Iterator[TablePage]:
        """Pages of a campaign's entries from the id `first` on and before `end`, in the order of their bytes, by
        eventually consistent queries: half the price. `since` as in `scan`.
        """
        if not EntryKey(campaign_id, "").can_be_in_table:
            return
        start_key: dict[str, Any] | None = None
        while True:
            page = self._page(self._client.query, _range(campaign_id, first, end), start_key, None, since)
            # DynamoDB has no range without its end.
            yield replace(page, items=[item for item in page.items if item[0].entry_id != end])
            start_key = page.next_key
            if start_key is None:
                return

    def has_campaign(self, campaign_id: str) -> bool:
        """Whether the campaign has any item, an entry or another, by a consistent read of one."""
        answer = self._call(
            self._client.query,
            TableName=self.table,
            KeyConditionExpression="PK = :pk",
            ExpressionAttributeValues={":pk": {"S": EntryKey(campaign_id, "").pk}},
            ProjectionExpression="PK",
            ConsistentRead=True,
            Limit=1,
        )
        return bool(answer.get("Items"))

    def campaign_ids(self) -> Iterator[str]:
        """Every campaign that has an item, each with one read of one item, because the next read begins behind its
        partition. Partitions of other items are read through in growing pages.
        """
        start_key: dict[str, Any] | None = None
        limit = 1
        while True:
            arguments: dict[str, Any] = {
                "TableName": self.table,
                "Limit": limit,
                "ProjectionExpression": "PK, SK",
            }
            if start_key:
                arguments["ExclusiveStartKey"] = start_key
            answer = self._call(self._client.scan, **arguments)
            found = [item["PK"]["S"] for item in answer.get("Items", ())]
            campaigns = [pk for pk in dict.fromkeys(found) if pk.startswith(CAMPAIGN_PREFIX)]
            yield from (encodable(pk[len(CAMPAIGN_PREFIX) :]) for pk in campaigns)
            start_key = answer.get("LastEvaluatedKey")
            if start_key is None:
                return
            if found[-1:] == campaigns[-1:]:
                start_key, limit = key_of(found[-1], _LAST_SK), 1
            else:
                limit = min(2 * limit, _MOST_FOREIGN)

    def _page(
        self,
        read: Any,
        arguments: Mapping[str, Any],
        start_key: Mapping[str, Any] | None,
        limit: int | None,
        since: str,
    ) -> TablePage:
        arguments = {**arguments, "TableName": self.table, "ReturnConsumedCapacity": "TOTAL"}
        if since:
            values = arguments.get("ExpressionAttributeValues", {}) | {":since": {"S": since}}
            arguments |= {"FilterExpression": "updatedAt >= :since", "ExpressionAttributeValues": values}
        if start_key:
            arguments["ExclusiveStartKey"] = start_key
        if limit:
            arguments["Limit"] = limit
        answer = self._call(read, **arguments)
        items = []
        for raw in answer.get("Items", ()):
            key = EntryKey.parse(raw["PK"]["S"], raw["SK"]["S"])
            if key is not None:
                items.append((key, plain_item(raw)))
        units = answer.get("ConsumedCapacity", {}).get("CapacityUnits", 0.0)
        return TablePage(items, answer.get("LastEvaluatedKey"), answer.get("ScannedCount", len(items)), units)

    def pages(self, campaign_id: str | None, segment: int = 0, segments: int = 1) -> Iterator[TablePage]:
        """All pages of one campaign (one segment only), or of one segment of the table."""
        start_key: dict[str, Any] | None = None
        while True:
            page = (
                self.query(campaign_id, start_key)
                if campaign_id is not None
                else self.scan(segment, segments, start_key)
            )
            yield page
            start_key = page.next_key
            if start_key is None:
                return

    def probe(self) -> None:
        """Make one cheap call. Raises TransientFailure or UsageError."""
        self._call(self._client.describe_table, TableName=self.table)
