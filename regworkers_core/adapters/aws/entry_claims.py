"""What a check reads in the demand table at once, and the two conditional writes that put an entry there once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from regworkers_core.adapters.aws.attribute_values import attribute, attributes, plain_item
from regworkers_core.adapters.aws.clients import error_code
from regworkers_core.adapters.aws.demand_table import MAX_GET
from regworkers_core.adapters.aws.tables import known_table
from regworkers_core.domain.claim import Claim, TableKey
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.dependency import Dependency, RetryPolicy
from regworkers_core.engine.parts import ask_again

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
            answer = self._call(lambda: self._batches.batch_get_item(RequestItems=request), end)
            for raw in answer.get("Responses", {}).get(self._table, ()):
                item = plain_item(raw)
                found[item["PK"], item["SK"]] = item
            left: list[Item] = answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", [])
            self._dependency.note_parts(served=len(pending) - len(left), throttled=len(left))
            return left

        wanted = [{"PK": {"S": pk}, "SK": {"S": sk}} for pk, sk in keys]
        left = ask_again(
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

    def put_entry(self, item: Item, *, within_seconds: float | None = None) -> bool:
        """Write an entry where there is none; False when there is one. `ref` tells whose it is."""
        end = self._end(within_seconds)
        return self._put(item, {"ConditionExpression": "attribute_not_exists(PK)"}, "ref", end)

    def _put(self, item: Item, condition: Mapping[str, Any], mark: str, end: float) -> bool:
        """A put whose answer got lost is refused when it is repeated, and yet it was ours: `mark` is an attribute
        that no other writer's item has alike.
        """
        raw = attributes(item)
        try:
            self._call(lambda: self._client.put_item(TableName=self._table, Item=raw, **condition), end)
        except ClientError as error:
            if error_code(error) != "ConditionalCheckFailedException":
                raise
            key = (item["PK"], item["SK"])
            left = None if end == math.inf else max(0.0, end - self._monotonic())
            return bool(self.read([key], within_seconds=left).get(key, {}).get(mark) == item[mark])
        return True

    def _end(self, within_seconds: float | None) -> float:
        return math.inf if within_seconds is None else self._monotonic() + within_seconds

    def _call(self, function: Any, end: float) -> Any:
        within = None if end == math.inf else end - self._monotonic()
        with known_table(self._table):
            return self._dependency.call(function, within_seconds=within)
