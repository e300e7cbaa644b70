"""What a check reads in the demand table at once, the two conditional writes that put an entry there once, and how an
erasure takes a claim back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from regworkers_core.adapters.aws.attribute_values import attribute, attributes, plain_item
from regworkers_core.adapters.aws.clients import error_code
from regworkers_core.adapters.aws.demand_table import MAX_GET, MAX_STATEMENTS
from regworkers_core.adapters.aws.tables import CHANGED, known_table, statement_outcome
from regworkers_core.domain.claim import IDENTITY_PREFIX, Claim, TableKey
from regworkers_core.domain.keys import CAMPAIGN_PREFIX
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Dependency, P, RetryPolicy, T, retry_parts

Item = dict[str, Any]


class EntryClaims:
    """`client` is boto3's, `batches` it or `DirectCalls`.

    Every method raises TransientFailure when DynamoDB cannot answer, UsageError for a missing table. No attempt begins
    after `within_seconds`, but for the first.
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
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._batches = client, batches
        self._dependency, self._table = dependency, table
        self._policy, self._sleep, self._monotonic = policy, sleep, monotonic

    def read(self, keys: Sequence[TableKey], *, within_seconds: float | None = None) -> dict[TableKey, Item]:
        """Consistent reads of up to 100 distinct keys in one call, whatever they are; absent ones are absent."""
        if len(keys) > MAX_GET:
            raise ValueError(f"at most {MAX_GET} keys a call")
        end = self._end(within_seconds)
        found: dict[TableKey, Item] = {}

        def ask(pending: Sequence[Item]) -> list[Item]:
            request = {self._table: {"Keys": pending, "ConsistentRead": True}}
            answer = self._call(end, self._batches.batch_get_item, RequestItems=request)
            for raw in answer.get("Responses", {}).get(self._table, ()):
                item = plain_item(raw)
                found[item["PK"], item["SK"]] = item
            left: list[Item] = answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", [])
            self._dependency.note_parts(served=len(pending) - len(left), throttled=len(left))
            return left

        wanted = [{"PK": {"S": pk}, "SK": {"S": sk}} for pk, sk in keys]
        left = retry_parts(
            wanted, ask, self._policy, self._sleep, whole=True, end=end, monotonic=self._monotonic
        )
        if left:
            raise TransientFailure(self._dependency.name, f"{len(left)} keys stayed unprocessed")
        return found

    def claim(self, claim: Claim, over: Claim | None, *, within_seconds: float | None = None) -> bool:
        """Write `claim` where nobody holds it, or exactly over what was read there; False when somebody was faster."""
        end = self._end(within_seconds)
        if over is None:
            return self._put(
                claim.as_item(), {"ConditionExpression": "attribute_not_exists(PK)"}, "token", end
            )
        if not over.token:
            # Damaged, so that there is nothing to compare but who holds it.
            condition, value = "entryId = :seen AND attribute_not_exists(#token)", over.entry_id
        else:
            condition, value = "#token = :seen", over.token
        names = {"ExpressionAttributeNames": {"#token": "token"}}
        values = {"ExpressionAttributeValues": {":seen": attribute(value)}}
        return self._put(claim.as_item(), {"ConditionExpression": condition, **names, **values}, "token", end)

    def release(self, claim: Claim) -> bool:
        """Delete a claim exactly as it was read; False when it is another one by now, or gone."""
        condition = "entryId = :entry AND #token = :token" if claim.token else "entryId = :entry"
        try:
            self._call(
                math.inf,
                self._client.delete_item,
                TableName=self._table,
                Key=attributes({"PK": claim.key[0], "SK": claim.key[1]}),
                ConditionExpression=condition,
                ExpressionAttributeValues=attributes(
                    {":entry": claim.entry_id, **({":token": claim.token} if claim.token else {})}
                ),
                **{"ExpressionAttributeNames": {"#token": "token"}} if claim.token else {},
            )
        except ClientError as error:
            if error_code(error) != "ConditionalCheckFailedException":
                raise
            return False
        return True

    def put_entry(self, item: Item, *, within_seconds: float | None = None) -> bool:
        """Write an entry where there is none; False when there is one. `ref` tells whose it is."""
        end = self._end(within_seconds)
        return self._put(item, {"ConditionExpression": "attribute_not_exists(PK)"}, "ref", end)

    def expire(self, campaign_id: str, ttl: int) -> Iterator[int]:
        """Give every claim of the campaign that has none this `ttl` (epoch seconds), after which DynamoDB deletes it;
        yields how many claims a page of them has got it. A repeat goes on.
        """
        query: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": "PK = :pk AND begins_with(SK, :sk)",
            "FilterExpression": "attribute_not_exists(#ttl)",
            "ProjectionExpression": "PK, SK",
            "ExpressionAttributeNames": {"#ttl": "ttl"},
            "ExpressionAttributeValues": attributes(
                {":pk": CAMPAIGN_PREFIX + campaign_id, ":sk": IDENTITY_PREFIX}
            ),
        }
        while True:
            page = self._call(math.inf, self._client.query, **query)
            keys = [(each["PK"]["S"], each["SK"]["S"]) for each in page.get("Items", ())]
            for start in range(0, len(keys), MAX_STATEMENTS):
                self._expire(keys[start : start + MAX_STATEMENTS], ttl)
            yield len(keys)
            if not page.get("LastEvaluatedKey"):
                return
            query["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def _expire(self, keys: Sequence[TableKey], ttl: int) -> None:
        # A statement creates nothing: a claim that was taken out meanwhile stays away.
        statement = f'UPDATE "{self._table}" SET "ttl"=? WHERE PK=? AND SK=?'

        def ask(pending: Sequence[TableKey]) -> list[TableKey]:
            statements = [
                {"Statement": statement, "Parameters": [attribute(value) for value in (ttl, *key)]}
                for key in pending
            ]
            answer = self._call(math.inf, self._client.batch_execute_statement, Statements=statements)
            left: list[TableKey] = []
            throttled = 0
            for key, response in zip(pending, answer["Responses"], strict=True):
                code, failure = statement_outcome(self._dependency.name, self._table, response)
                if failure is not None:
                    throttled += failure.throttled
                    left.append(key)
                elif code not in ("", CHANGED):
                    raise UsageError(f"a claim cannot be given its ttl: {code}")
            self._dependency.note_parts(served=len(pending) - len(left), throttled=throttled)
            return left

        if left := retry_parts(keys, ask, self._policy, self._sleep, whole=True):
            raise TransientFailure(self._dependency.name, f"{len(left)} claims stayed unprocessed")

    def _put(self, item: Item, condition: Mapping[str, Any], mark: str, end: float) -> bool:
        """A put whose answer got lost is refused when it is repeated, and yet it was ours: `mark` is an attribute
        that no other writer's item has alike.
        """
        raw = attributes(item)
        try:
            self._call(end, self._client.put_item, TableName=self._table, Item=raw, **condition)
        except ClientError as error:
            if error_code(error) != "ConditionalCheckFailedException":
                raise
            key = (item["PK"], item["SK"])
            left = None if end == math.inf else max(0.0, end - self._monotonic())
            return bool(self.read([key], within_seconds=left).get(key, {}).get(mark) == item[mark])
        return True

    def _end(self, within_seconds: float | None) -> float:
        return math.inf if within_seconds is None else self._monotonic() + within_seconds

    def _call(self, end: float, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        within = None if end == math.inf else end - self._monotonic()
        with known_table(self._table):
            return self._dependency.within(within, function, *args, **kwargs)
