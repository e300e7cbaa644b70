"""Invites in the demand table: read consistently, counted, written and removed in batches. No cache is between, so a
"not invited" flips the moment an upload has written the invite.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from regworkers_core.adapters.aws.attribute_values import attributes
from regworkers_core.adapters.aws.tables import known_table
from regworkers_core.domain.claim import TableKey
from regworkers_core.domain.invite import INVITE_PREFIX, Invite, InviteType
from regworkers_core.domain.keys import CAMPAIGN_PREFIX
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.dependency import Dependency, P, RetryPolicy, T, retry_parts

_MAX_WRITE = 25

Request = dict[str, Any]


class Counted(NamedTuple):
    """Invites of one page of a count."""

    valid: int
    expired: int


class Invites:
    """`client` is boto3's, `batches` it or `DirectCalls`.

    Every method raises TransientFailure when DynamoDB cannot answer, also when it stays too busy for a part of
    what it was asked, and UsageError for a missing table.
    """

    def __init__(
        self,
        client: Any,
        batches: Any,
        dependency: Dependency,
        table: str,
        *,
        policy: RetryPolicy,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._client, self._batches = client, batches
        self._dependency, self._table = dependency, table
        self._policy, self._sleep = policy, sleep

    def ttls(self, keys: Sequence[TableKey]) -> dict[TableKey, int]:
        """`ttl` (epoch seconds) by key, of up to 100 distinct ones that are there. Expired invites linger, so
        compare.
        """
        found: dict[TableKey, int] = {}

        def ask(pending: Sequence[Request]) -> list[Request]:
            # Whole: an invite is small, a projection makes no read cheaper.
            request = {self._table: {"Keys": pending, "ConsistentRead": True}}
            answer = self._call(self._batches.batch_get_item, RequestItems=request)
            found.update(_ttls(answer.get("Responses", {}).get(self._table, ())))
            left: list[Request] = answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", [])
            return left

        self._until_all_are_done([_key(key) for key in keys], ask)
        return found

    def few(self, campaign_id: str, type_: InviteType) -> dict[TableKey, int] | None:
        """`ttl` by key of all invites of one type, expired ones included, when they fit into one page (1 MB);
        None when there are more.
        """
        answer = self._query(campaign_id, type_)
        return None if answer.get("LastEvaluatedKey") else _ttls(answer.get("Items", ()))

    def are_there(self, campaign_id: str) -> bool:
        """Whether the campaign has an invite of any type, expired or not."""
        return bool(self._query(campaign_id, None, Limit=1).get("Items"))

    def count(self, campaign_id: str, type_: InviteType, now: float) -> Iterator[Counted]:
        """Page by page; no invite is sent over the wire."""
        more: dict[str, Any] = {}
        while True:
            answer = self._query(
                campaign_id,
                type_,
                Select="COUNT",
                FilterExpression="#ttl > :now",
                ExpressionAttributeNames={"#ttl": "ttl"},
                values={":now": {"N": repr(now)}},
                **more,
            )
            yield Counted(answer["Count"], answer["ScannedCount"] - answer["Count"])
            if not answer.get("LastEvaluatedKey"):
                return
            more = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def write(self, invites: Sequence[Invite]) -> None:
        """Write distinct invites over whatever stands under their keys; a repeat does no harm."""
        self._write([{"PutRequest": {"Item": item}} for item in _items(invites)])

    def remove(self, keys: Sequence[TableKey]) -> None:
        """Remove invites by distinct keys; one that is not there does no harm."""
        self._write([{"DeleteRequest": {"Key": _key(key)}} for key in keys])

    def _write(self, requests: Sequence[Request]) -> None:
        def ask(pending: Sequence[Request]) -> list[Request]:
            request = {self._table: pending}
            answer = self._call(self._batches.batch_write_item, RequestItems=request)
            left: list[Request] = answer.get("UnprocessedItems", {}).get(self._table, [])
            return left

        for start in range(0, len(requests), _MAX_WRITE):
            self._until_all_are_done(list(requests[start : start + _MAX_WRITE]), ask)

    def _until_all_are_done(
        self, requests: list[Request], ask: Callable[[Sequence[Request]], list[Request]]
    ) -> None:
        """All invites of a campaign lie in one partition, so a large upload is throttled as a matter of course."""

        def noted(pending: Sequence[Request]) -> list[Request]:
            left = ask(pending)
            self._dependency.note_parts(served=len(pending) - len(left), throttled=len(left))
            return left

        if left := retry_parts(requests, noted, self._policy, self._sleep, whole=True):
            raise TransientFailure(self._dependency.name, f"{len(left)} invites stayed unprocessed")

    def _query(
        self,
        campaign_id: str,
        type_: InviteType | None,
        *,
        values: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> dict[str, Any]:
        prefix = INVITE_PREFIX + (f"{type_.value}#" if type_ else "")
        answer: dict[str, Any] = self._call(
            self._client.query,
            TableName=self._table,
            ConsistentRead=True,
            KeyConditionExpression="PK = :pk AND begins_with(SK, :sk)",
            ExpressionAttributeValues={
                ":pk": {"S": CAMPAIGN_PREFIX + campaign_id},
                ":sk": {"S": prefix},
                **(values or {}),
            },
            **arguments,
        )
        return answer

    def _call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        with known_table(self._table):
            return self._dependency.call(function, *args, **kwargs)


def _key(key: TableKey) -> Request:
    return {"PK": {"S": key[0]}, "SK": {"S": key[1]}}


def _items(invites: Iterable[Invite]) -> Iterator[Request]:
    """Those of one upload differ in their SK alone: the rest is made once."""
    made: dict[tuple[str, InviteType, int], Request] = {}
    for invite in invites:
        of_upload = (invite.campaign_id, invite.type, invite.ttl)
        if of_upload not in made:
            made[of_upload] = attributes(invite.as_item())
        yield {**made[of_upload], "SK": {"S": invite.table_key[1]}}


def _ttls(items: Iterable[Mapping[str, Any]]) -> dict[TableKey, int]:
    # One that an earlier tool wrote without a ttl never expires for DynamoDB; for us it has.
    return {(each["PK"]["S"], each["SK"]["S"]): int(float(each.get("ttl", {}).get("N", 0))) for each in items}
