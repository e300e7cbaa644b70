"""Invites in the demand table: read consistently, counted, written and removed in batches. There is no cache, so that a
"not invited" changes as soon as an upload has written the invite.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from regworkers_core.adapters.aws.tables import Item as Request
from regworkers_core.adapters.aws.tables import TableClient, attributes, key_of
from regworkers_core.domain.claim import INVITE_PREFIX, Invite, InviteType, TableKey
from regworkers_core.domain.keys import CAMPAIGN_PREFIX

_MAX_WRITE = 25


class InviteCounts(NamedTuple):
    """Invites of one page of a count."""

    valid: int
    expired: int


class Invites(TableClient):
    def ttls(self, keys: Sequence[TableKey]) -> dict[TableKey, int]:
        """`ttl` (epoch seconds) by key, of up to 100 distinct ones that exist. Expired invites linger, so compare."""
        return _ttls(self._get_some(keys))

    def few(self, campaign_id: str, type_: InviteType) -> dict[TableKey, int] | None:
        """`ttl` by key of all invites of one type, expired ones included, if they fit into one page (1 MB), else
        None.
        """
        answer = self._query(campaign_id, type_)
        return None if answer.get("LastEvaluatedKey") else _ttls(answer.get("Items", ()))

    def are_there(self, campaign_id: str) -> bool:
        """Whether the campaign has an invite of any type, expired or not."""
        return bool(self._query(campaign_id, None, Limit=1).get("Items"))

    def count(self, campaign_id: str, type_: InviteType, now: float) -> Iterator[InviteCounts]:
        """Page by page; DynamoDB counts, no invite is transferred."""
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
            yield InviteCounts(answer["Count"], answer["ScannedCount"] - answer["Count"])
            if not answer.get("LastEvaluatedKey"):
                return
            more = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def keys(self, campaign_id: str, type_: InviteType) -> Iterator[TableKey]:
        """The keys of all invites of one type, expired ones included."""
        more: dict[str, Any] = {}
        while True:
            answer = self._query(campaign_id, type_, ProjectionExpression="PK, SK", **more)
            yield from ((each["PK"]["S"], each["SK"]["S"]) for each in answer.get("Items", ()))
            if not answer.get("LastEvaluatedKey"):
                return
            more = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def write(self, invites: Sequence[Invite]) -> None:
        """Write distinct invites, replacing existing ones. Idempotent."""
        self._write([{"PutRequest": {"Item": item}} for item in _items(invites)])

    def remove(self, keys: Sequence[TableKey]) -> None:
        """Remove invites by distinct keys. Idempotent."""
        self._write([{"DeleteRequest": {"Key": key_of(*key)}} for key in keys])

    def _write(self, requests: Sequence[Request]) -> None:
        def ask(pending: Sequence[Request]) -> list[Request]:
            request = {self.table: pending}
            answer = self._call(self._client.batch_write_item, RequestItems=request)
            left: list[Request] = answer.get("UnprocessedItems", {}).get(self.table, [])
            return left

        # All invites of a campaign are in one partition, so it is normal that a large upload is throttled.
        for start in range(0, len(requests), _MAX_WRITE):
            self._until_done(requests[start : start + _MAX_WRITE], ask, "invites")

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
            TableName=self.table,
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


def _items(invites: Iterable[Invite]) -> Iterator[Request]:
    """Invites of one upload differ in their SK only, so the rest is built once."""
    made: dict[tuple[str, InviteType, int], Request] = {}
    for invite in invites:
        of_upload = (invite.campaign_id, invite.type, invite.ttl)
        if of_upload not in made:
            made[of_upload] = attributes(invite.as_item())
        yield {**made[of_upload], "SK": {"S": invite.table_key[1]}}


def _ttls(items: Iterable[Mapping[str, Any]]) -> dict[TableKey, int]:
    # An invite without a ttl, from an earlier tool, never expires in DynamoDB; here it counts as expired.
    return {(each["PK"]["S"], each["SK"]["S"]): int(float(each.get("ttl", {}).get("N", 0))) for each in items}
