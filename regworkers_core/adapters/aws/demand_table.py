"""The DynamoDB demand table: consistent reads, conditional clearing of the flag, scans."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from regworkers_core.adapters.aws.attribute_values import attribute, plain_item
from regworkers_core.adapters.aws.clients import error_code
from regworkers_core.adapters.aws.tables import CHANGED, known_table, statement_outcome
from regworkers_core.domain.entry import ORDER_FIELDS, Entry
from regworkers_core.domain.keys import ENTRY_PREFIX, EntryKey
from regworkers_core.domain.reasons import ItemFailure, TransientFailure
from regworkers_core.engine.dependency import Dependency, P, RetryPolicy, T, retry_parts

MAX_GET = 100
MAX_STATEMENTS = 25


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a scan. `next_key` is None at the end; items are plain Python values."""

    items: list[tuple[EntryKey, dict[str, Any]]]
    next_key: dict[str, Any] | None
    scanned: int


class Cleared(NamedTuple):
    """What was not cleared: entries that changed or vanished since the read, and the others with the reason, be it an
    ItemFailure (too large with the three fields, say) or a TransientFailure.
    """

    changed: list[Entry]
    failed: list[tuple[Entry, ItemFailure | TransientFailure]]


class DemandTable:
    """Entries of the demand table. Every method raises TransientFailure when DynamoDB cannot answer."""

    def __init__(
        self,
        client: Any,
        dependency: Dependency,
        table: str,
        *,
        policy: RetryPolicy,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._dependency = dependency
        self.table = table
        self._policy = policy
        self._sleep = sleep

    def get(self, keys: Sequence[EntryKey]) -> dict[EntryKey, dict[str, Any]]:
        """Consistent reads of distinct keys, 100 a call; an absent key is absent from the answer, and so is one that
        DynamoDB takes for none.

        UnprocessedKeys are asked again with backoff; raises TransientFailure if some stay unprocessed, so
        that "could not read" is never taken for "absent".
        """
        found: dict[EntryKey, dict[str, Any]] = {}
        # It would refuse the whole call.
        keys = [key for key in keys if key.can_be_in_table]

        def ask(pending: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
            request = {self.table: {"Keys": pending, "ConsistentRead": True}}
            answer = self._call(self._client.batch_get_item, RequestItems=request)
            for raw in answer.get("Responses", {}).get(self.table, ()):
                item = plain_item(raw)
                key = EntryKey.parse(item["PK"], item["SK"])
                if key is not None:
                    found[key] = item
            left: list[dict[str, Any]] = answer.get("UnprocessedKeys", {}).get(self.table, {}).get("Keys", [])
            self._dependency.note_parts(served=len(pending) - len(left), throttled=len(left))
            return left

        for start in range(0, len(keys), MAX_GET):
            pending = [{"PK": {"S": key.pk}, "SK": {"S": key.sk}} for key in keys[start : start + MAX_GET]]
            if left := retry_parts(pending, ask, self._policy, self._sleep, whole=True):
                raise TransientFailure(self._dependency.name, f"{len(left)} keys stayed unprocessed")
        return found

    def clear_flags(self, entries: Sequence[Entry], replicated_at: str) -> Cleared:
        """Set `needsReplication=false`, `replicatedVersion` and `replicatedAt` on each entry whose
        `createdAt`, `version` and `updatedAt` are still as read; never creates an item.

        What DynamoDB is too busy for is repeated with backoff, statement by statement. Never raises TransientFailure,
        for what it did is done; raises UsageError where access is refused or the table is missing.
        """
        cleared = Cleared([], [])
        # Why each entry that is still to do was not done at the last attempt.
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
        """One call; the entries that it should be repeated for."""
        statements = [self._clear_statement(entry, replicated_at) for entry in entries]
        try:
            answer = self._call(self._client.batch_execute_statement, Statements=statements)
        except TransientFailure as failure:
            # Repeated as often as the policy lets it already.
            cleared.failed.extend((entry, failure) for entry in entries)
            return []
        left: list[Entry] = []
        throttled = 0
        for entry, response in zip(entries, answer["Responses"], strict=True):
            code, refusal = statement_outcome(self._dependency.name, self.table, response)
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
        """Delete an entry whose `createdAt`, `version` and `updatedAt` are still those of `item`; False where they are
        not, or it is gone. Of one that is neither a text nor a 64-bit integer it is enough that it is there: it was not
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
        try:
            self._call(
                self._client.delete_item,
                TableName=self.table,
                Key={"PK": {"S": key.pk}, "SK": {"S": key.sk}},
                ConditionExpression=" AND ".join(["attribute_exists(PK)", *conditions]),
                ExpressionAttributeNames={f"#{name}": name for name in ORDER_FIELDS},
                **{"ExpressionAttributeValues": given} if given else {},
            )
        except ClientError as error:
            if error_code(error) != "ConditionalCheckFailedException":
                raise
            return False
        return True

    def scan(
        self,
        segment: int,
        segments: int,
        start_key: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> Page:
        """One page (at most 1 MB) of entries of one segment of a parallel, consistent scan."""
        arguments: dict[str, Any] = {"Segment": segment, "TotalSegments": segments}
        return self._page(self._client.scan, arguments, start_key, limit)

    def query(
        self, campaign_id: str, start_key: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> Page:
        """One page of the entries of one campaign, by a consistent query on its partition."""
        arguments: dict[str, Any] = {
            "KeyConditionExpression": "PK = :pk AND begins_with(SK, :sk)",
            "ExpressionAttributeValues": {
                ":pk": {"S": EntryKey(campaign_id, "").pk},
                ":sk": {"S": ENTRY_PREFIX},
            },
        }
        return self._page(self._client.query, arguments, start_key, limit)

    def _page(
        self, read: Any, arguments: dict[str, Any], start_key: Mapping[str, Any] | None, limit: int | None
    ) -> Page:
        arguments = {**arguments, "TableName": self.table, "ConsistentRead": True}
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
        return Page(items, answer.get("LastEvaluatedKey"), answer.get("ScannedCount", len(items)))

    def pages(self, campaign_id: str | None, segment: int = 0, segments: int = 1) -> Iterator[Page]:
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
        """One cheap call; raises TransientFailure or UsageError."""
        self._call(self._client.describe_table, TableName=self.table)

    def _call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        with known_table(self.table):
            return self._dependency.call(function, *args, **kwargs)
