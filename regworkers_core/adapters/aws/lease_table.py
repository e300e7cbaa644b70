"""Leases in DynamoDB (`worker-leases`: `PK`, `SK`, `owner`, `token`, `counter`, `scope`, `position`, `state`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from regworkers_core.adapters.aws.attribute_values import attributes, plain_item
from regworkers_core.adapters.aws.clients import error_code
from regworkers_core.adapters.aws.tables import known_table
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.dependency import Dependency, P, T
from regworkers_core.engine.leases import LeaseKey, LeaseRow
from regworkers_core.engine.marks import MARKS

# All of them are reserved words in expressions.
_NAMES = {f"#{name}": name for name in ("owner", "token", "counter", "position", "state")}
# Keys of one BatchGetItem.
_MAX_GET = 100
# Of a megabyte each, for a look: some ten thousand rows.
_MOST_PAGES = 3
_HELD = "#owner = :owner AND #token = :token"
_AS_SEEN = "#token = :token AND #counter = :counter"


class DynamoLeaseTable:
    """`engine.leases.LeaseTable` on one table; `client` is a botocore client of `dynamodb`."""

    def __init__(self, client: Any, dependency: Dependency, table_name: str) -> None:
        self._client, self._dependency, self._table = client, dependency, table_name

    def get(self, key: LeaseKey) -> LeaseRow | None:
        answer = self._call(self._client.get_item, TableName=self._table, Key=_key(key), ConsistentRead=True)
        return _row(answer["Item"]) if "Item" in answer else None

    def several(self, keys: Sequence[LeaseKey]) -> dict[LeaseKey, LeaseRow]:
        """Those rows that there are, in few calls: for a look. What DynamoDB has no time for is a TransientFailure."""
        parts = (keys[start : start + _MAX_GET] for start in range(0, len(keys), _MAX_GET))
        return {row.key: row for part in parts for row in self._some(part)}

    def _some(self, keys: Sequence[LeaseKey]) -> list[LeaseRow]:
        request = {self._table: {"Keys": [_key(key) for key in keys], "ConsistentRead": True}}
        answer = self._call(self._client.batch_get_item, RequestItems=request)
        if left := answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", ()):
            raise TransientFailure(self._dependency.name, f"{len(left)} keys stayed unprocessed")
        return [_row(item) for item in answer["Responses"].get(self._table, ())]

    def rows(self, pk: str) -> list[LeaseRow]:
        query: dict[str, Any] = {
            "TableName": self._table,
            "ConsistentRead": True,
            "KeyConditionExpression": "PK = :pk",
            "ExpressionAttributeValues": attributes({":pk": pk}),
        }
        rows: list[LeaseRow] = []
        while True:
            page = self._call(self._client.query, **query)
            rows.extend(_row(item) for item in page["Items"])
            if not page.get("LastEvaluatedKey"):
                return rows
            query["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def all(self, limit: int) -> list[LeaseRow]:
        """Up to `limit` rows of every kind but marks of messages, of which an outage makes many; in no order: for a
        look at who holds what, not for taking any.
        """
        query: dict[str, Any] = {
            "TableName": self._table,
            "FilterExpression": "NOT begins_with(PK, :marks)",
            "ExpressionAttributeValues": attributes({":marks": MARKS}),
        }
        rows: list[LeaseRow] = []
        for _ in range(_MOST_PAGES):
            page = self._call(self._client.scan, **query)
            rows.extend(_row(item) for item in page["Items"])
            if len(rows) >= limit or not page.get("LastEvaluatedKey"):
                break
            query["ExclusiveStartKey"] = page["LastEvaluatedKey"]
        return rows[:limit]

    def swap(self, row: LeaseRow, seen: LeaseRow | None) -> bool:
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(PK)"}
        if seen is not None:
            condition = _as_seen(seen)
        return self._conditional(self._client.put_item, TableName=self._table, Item=_item(row), **condition)

    def renew(
        self,
        key: LeaseKey,
        owner: str,
        token: int,
        state: Mapping[str, str] | None = None,
        position: str = "",
    ) -> bool:
        values: dict[str, Any] = {":owner": owner, ":token": token, ":one": 1}
        names = {"#owner", "#token", "#counter"}
        update, condition = "SET #counter = #counter + :one", _HELD
        if state is not None:
            update += ", #state = :state"
            names.add("#state")
            values[":state"] = state
        if position:
            update += ", #position = :position"
            condition += " AND (attribute_not_exists(#position) OR #position <= :position)"
            names.add("#position")
            values[":position"] = position
        return self._update(key, update, condition, names, values)

    def release(self, key: LeaseKey, owner: str, token: int) -> bool:
        # The counter moves, too: whoever read the row as owned must not swap on that.
        values = {":owner": owner, ":token": token, ":one": 1}
        update = "SET #counter = #counter + :one REMOVE #owner"
        return self._update(key, update, _HELD, {"#owner", "#token", "#counter"}, values)

    def remove(self, seen: LeaseRow) -> bool:
        return self._conditional(
            self._client.delete_item, TableName=self._table, Key=_key(seen.key), **_as_seen(seen)
        )

    def _update(
        self, key: LeaseKey, update: str, condition: str, names: set[str], values: Mapping[str, Any]
    ) -> bool:
        return self._conditional(
            self._client.update_item,
            TableName=self._table,
            Key=_key(key),
            UpdateExpression=update,
            ConditionExpression=condition,
            ExpressionAttributeNames={name: _NAMES[name] for name in names},
            ExpressionAttributeValues=attributes(values),
        )

    def _conditional(self, write: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> bool:
        try:
            self._call(write, *args, **kwargs)
        except ClientError as error:
            if error_code(error) == "ConditionalCheckFailedException":
                return False
            raise
        return True

    def _call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        with known_table(self._table):
            return self._dependency.call(function, *args, **kwargs)


def _as_seen(seen: LeaseRow) -> dict[str, Any]:
    return {
        "ConditionExpression": _AS_SEEN,
        "ExpressionAttributeNames": {"#token": "token", "#counter": "counter"},
        "ExpressionAttributeValues": attributes({":token": seen.token, ":counter": seen.counter}),
    }


def _key(key: LeaseKey) -> dict[str, Any]:
    return attributes({"PK": key.pk, "SK": key.sk})


def _item(row: LeaseRow) -> dict[str, Any]:
    texts = {"owner": row.owner, "scope": row.scope, "position": row.position}
    present = {name: text for name, text in texts.items() if text}
    return {
        **_key(row.key),
        **attributes({"token": row.token, "counter": row.counter, "state": row.state, **present}),
    }


def _row(item: Mapping[str, Any]) -> LeaseRow:
    row = plain_item(item)
    return LeaseRow(
        key=LeaseKey(row["PK"], row["SK"]),
        owner=row.get("owner", ""),
        token=row["token"],
        counter=row["counter"],
        scope=row.get("scope", ""),
        position=row.get("position", ""),
        state=row["state"],
    )
