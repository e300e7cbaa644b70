"""Claims, entries and invites in the demand table: the reads of an eligibility check, the two conditional writes that
create an entry once, the release and expiry of claims; and invites, read, counted, written and removed in batches.

There is no cache, so that a "not invited" changes as soon as an upload has written the invite.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from regworkers_core.adapters.aws.answers import AwsRefusal
from regworkers_core.adapters.aws.tables import (
    CHANGED,
    MAX_GET,
    MAX_STATEMENTS,
    Item,
    TableClient,
    attribute,
    attributes,
    key_of,
    plain_item,
)
from regworkers_core.adapters.aws.tables import Item as Request
from regworkers_core.domain.claim import IDENTITY_PREFIX, INVITE_PREFIX, Claim, Invite, InviteType, TableKey
from regworkers_core.domain.keys import CAMPAIGN_PREFIX
from regworkers_core.domain.reasons import UsageError

# DynamoDB's limit on the operands of IN.
_MOST_OPERANDS = 100


def _claims_of(campaign_id: str) -> dict[str, Any]:
    place = {":pk": CAMPAIGN_PREFIX + campaign_id, ":sk": IDENTITY_PREFIX}
    return {
        "KeyConditionExpression": "PK = :pk AND begins_with(SK, :sk)",
        "ExpressionAttributeValues": attributes(place),
    }


class EntryClaims(TableClient):
    """No attempt except the first begins after `within_seconds`."""

    def read(self, keys: Sequence[TableKey], *, within_seconds: float | None = None) -> dict[TableKey, Item]:
        """Consistent reads of up to 100 distinct keys of any kind in one call; those that do not exist are absent."""
        if len(keys) > MAX_GET:
            raise ValueError(f"at most {MAX_GET} keys per call")
        items = map(plain_item, self._get_some(keys, end=self._end(within_seconds)))
        return {(item["PK"], item["SK"]): item for item in items}

    def claim(self, claim: Claim, over: Claim | None, *, within_seconds: float | None = None) -> bool:
        """Write `claim` if none exists, or exactly over the one that was read. False if another writer was faster."""
        end = self._end(within_seconds)
        if over is None:
            return self._put(
                claim.as_item(), {"ConditionExpression": "attribute_not_exists(PK)"}, "token", end
            )
        if not over.token:
            # A damaged claim has only its holder to compare.
            condition, value = "entryId = :seen AND attribute_not_exists(#token)", over.entry_id
        else:
            condition, value = "#token = :seen", over.token
        names = {"ExpressionAttributeNames": {"#token": "token"}}
        values = {"ExpressionAttributeValues": {":seen": attribute(value)}}
        return self._put(claim.as_item(), {"ConditionExpression": condition, **names, **values}, "token", end)

    def release(self, claim: Claim) -> bool:
        """Delete a claim exactly as it was read. False if it was replaced or deleted meanwhile."""
        condition = "entryId = :entry AND #token = :token" if claim.token else "entryId = :entry"
        token = {":token": claim.token} if claim.token else {}
        return self._conditional(
            self._client.delete_item,
            TableName=self.table,
            Key=key_of(*claim.key),
            ConditionExpression=condition,
            ExpressionAttributeValues=attributes({":entry": claim.entry_id, **token}),
            **{"ExpressionAttributeNames": {"#token": "token"}} if claim.token else {},
        )

    def held_by(self, campaign_id: str, entry_ids: Collection[str]) -> Iterator[Claim]:
        """The claims of the campaign that name one of these entries. Reads all of its claims, consistently."""
        query = _claims_of(campaign_id)
        if len(entry_ids) <= _MOST_OPERANDS:
            names = {f":e{number}": entry_id for number, entry_id in enumerate(sorted(entry_ids))}
            query["FilterExpression"] = f"entryId IN ({', '.join(names)})"
            query["ExpressionAttributeValues"] |= attributes(names)
        for page in self._pages({**query, "ConsistentRead": True}):
            for item in map(plain_item, page):
                if item.get("entryId") in entry_ids:
                    yield Claim.of(item)

    def put_entry(self, item: Item, *, within_seconds: float | None = None) -> bool:
        """Write an entry if none exists. False if one does, unless its `ref` shows that it is this one."""
        end = self._end(within_seconds)
        return self._put(item, {"ConditionExpression": "attribute_not_exists(PK)"}, "ref", end)

    def expire(self, campaign_id: str, ttl: int) -> Iterator[int]:
        """Set this `ttl` (epoch seconds), after which DynamoDB deletes it, on every claim of the campaign without one;
        yields how many claims of each page got it. A repeat continues.
        """
        query = _claims_of(campaign_id) | {
            "FilterExpression": "attribute_not_exists(#ttl)",
            "ProjectionExpression": "PK, SK",
            "ExpressionAttributeNames": {"#ttl": "ttl"},
        }
        for page in self._pages(query):
            keys = [(each["PK"]["S"], each["SK"]["S"]) for each in page]
            for start in range(0, len(keys), MAX_STATEMENTS):
                self._expire(keys[start : start + MAX_STATEMENTS], ttl)
            yield len(keys)

    def _pages(self, query: Mapping[str, Any]) -> Iterator[list[Item]]:
        more: dict[str, Any] = {}
        while True:
            page = self._call(self._client.query, TableName=self.table, **query, **more)
            yield page.get("Items", [])
            if not page.get("LastEvaluatedKey"):
                return
            more = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def _expire(self, keys: Sequence[TableKey], ttl: int) -> None:
        # A statement creates nothing, so a claim that was released meanwhile is not written again.
        statement = f'UPDATE "{self.table}" SET "ttl"=? WHERE PK=? AND SK=?'

        def ask(pending: Sequence[TableKey]) -> list[TableKey]:
            statements = [
                {"Statement": statement, "Parameters": [attribute(value) for value in (ttl, *key)]}
                for key in pending
            ]
            answer = self._call(self._client.batch_execute_statement, Statements=statements)
            left: list[TableKey] = []
            for key, response in zip(pending, answer["Responses"], strict=True):
                code, failure = self._statement_outcome(response)
                if failure is not None:
                    left.append(key)
                elif code not in ("", CHANGED):
                    raise UsageError(f"the ttl of a claim cannot be set: {code}")
            return left

        self._until_done(keys, ask, "claims")

    def _put(self, item: Item, condition: Mapping[str, Any], mark: str, end: float) -> bool:
        """False when the condition does not hold. A repeat of a put whose answer was lost is refused too, although the
        item is ours: it is recognised by the attribute `mark`, whose value no other writer uses.
        """
        raw = attributes(item)
        try:
            self._call_until(end, self._client.put_item, TableName=self.table, Item=raw, **condition)
        except AwsRefusal as error:
            if error.code != "ConditionalCheckFailedException":
                raise
            key = (item["PK"], item["SK"])
            left = None if end == math.inf else max(0.0, end - self._monotonic())
            return bool(self.read([key], within_seconds=left).get(key, {}).get(mark) == item[mark])
        return True

    def _end(self, within_seconds: float | None) -> float:
        return math.inf if within_seconds is None else self._monotonic() + within_seconds


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
