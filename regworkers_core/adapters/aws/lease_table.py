"""Leases in DynamoDB (`worker-leases`: `PK`, `SK`, `owner`, `token`, `counter`, `scope`, `position`, `state`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from regworkers_core.adapters.aws.tables import MAX_GET, TableClient, attributes
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.leases import LeaseKey, LeaseRow
from regworkers_core.engine.marks import MARKS

# All of them are reserved words in expressions.
_NAMES = {f"#{name}": name for name in ("owner", "token", "counter", "position", "state")}
# Pages of 1 MB each: about ten thousand rows.
_MOST_PAGES = 3
_HELD = "#owner = :owner AND #token = :token"
_NO_TEXT = {"S": ""}
_AS_SEEN = "#token = :token AND #counter = :counter"


class DynamoLeaseTable(TableClient):
    """`engine.leases.LeaseTable` on one table."""

    def get(self, key: LeaseKey) -> LeaseRow | None:
        answer = self._call(self._client.get_item, TableName=self.table, Key=_key(key), ConsistentRead=True)
        return _row(answer["Item"]) if "Item" in answer else None

    def several(self, keys: Sequence[LeaseKey]) -> dict[LeaseKey, LeaseRow]:
        """The rows that exist, in few calls. Throttled keys are not asked for again but raise TransientFailure."""
        parts = (keys[start : start + MAX_GET] for start in range(0, len(keys), MAX_GET))
        return {row.key: row for part in parts for row in self._some(part)}

    def _some(self, keys: Sequence[LeaseKey]) -> list[LeaseRow]:
        request = {self.table: {"Keys": [_key(key) for key in keys], "ConsistentRead": True}}
        answer = self._call(self._client.batch_get_item, RequestItems=request)
        if left := answer.get("UnprocessedKeys", {}).get(self.table, {}).get("Keys", ()):
            raise TransientFailure(self._dependency.name, f"{len(left)} keys stayed unprocessed")
        return [_row(item) for item in answer["Responses"].get(self.table, ())]

    def rows(self, pk: str) -> list[LeaseRow]:
        query: dict[str, Any] = {
            "TableName": self.table,
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
        """Up to `limit` rows of every kind except marks of messages, of which an outage creates many; unordered and
        possibly stale, so never take a lease by it.
        """
        query: dict[str, Any] = {
            "TableName": self.table,
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
        return self._conditional(self._client.put_item, TableName=self.table, Item=_item(row), **condition)

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
        # The counter moves too, so that a process that read the row as owned cannot swap on that.
        values = {":owner": owner, ":token": token, ":one": 1}
        update = "SET #counter = #counter + :one REMOVE #owner"
        return self._update(key, update, _HELD, {"#owner", "#token", "#counter"}, values)

    def remove(self, seen: LeaseRow) -> bool:
        return self._conditional(
            self._client.delete_item, TableName=self.table, Key=_key(seen.key), **_as_seen(seen)
        )

    def _update(
        self, key: LeaseKey, update: str, condition: str, names: set[str], values: Mapping[str, Any]
    ) -> bool:
        return self._conditional(
            self._client.update_item,
            TableName=self.table,
            Key=_key(key),
            UpdateExpression=update,
            ConditionExpression=condition,
            ExpressionAttributeNames={name: _NAMES[name] for name in names},
            ExpressionAttributeValues=attributes(values),
        )


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
    # No deserializer: a table of many shards has thousands of rows, which every process reads again and again.
    return LeaseRow(
        key=LeaseKey(item["PK"]["S"], item["SK"]["S"]),
        owner=item.get("owner", _NO_TEXT)["S"],
        token=int(item["token"]["N"]),
        counter=int(item["counter"]["N"]),
        scope=item.get("scope", _NO_TEXT)["S"],
        position=item.get("position", _NO_TEXT)["S"],
        state={name: text["S"] for name, text in item["state"]["M"].items()},
    )
