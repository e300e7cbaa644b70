"""The simulated DynamoDB's tables: created, described, changed and deleted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from tests.simulation.gate import Gate
from tests.simulation.servers.client import Refused, operation
from tests.simulation.servers.streams import Streams
from tests.simulation.servers.table import Table
from tests.simulation.servers.values import invalid


class TableSettings:
    """An account's tables in a region. `shards` is the number with which a new stream begins. With `stale`, half of the
    reads that do not ask for consistency see an item as it was before its last write of this second.
    """

    def __init__(
        self, streams: Streams, region: str, account: str, *, shards: int = 1, stale: Random | None = None
    ) -> None:
        self.region, self.account, self.shards, self.stale = region, account, shards, stale
        self.streams = streams
        self.tables: dict[str, Table] = {}

    def table(self, name: str) -> Table:
        # An ARN serves as well.
        found = self.tables.get(name.rpartition("/")[2])
        if found is None:
            raise Refused(
                "ResourceNotFoundException", f"Requested resource not found: Table: {name} not found"
            )
        return found

    @operation
    def create_table(
        self,
        gate: Gate,
        *,
        TableName: str,
        KeySchema: Sequence[Mapping[str, str]],
        AttributeDefinitions: Sequence[Mapping[str, str]],
        BillingMode: str = "PROVISIONED",
        DeletionProtectionEnabled: bool = False,
        StreamSpecification: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        if TableName in self.tables:
            raise Refused("ResourceInUseException", f"Table already exists: {TableName}")
        table = Table(
            TableName,
            {
                "TableName": TableName,
                "TableStatus": "ACTIVE",
                "TableArn": f"arn:aws:dynamodb:{self.region}:{self.account}:table/{TableName}",
                "KeySchema": [dict(each) for each in KeySchema],
                "AttributeDefinitions": [dict(each) for each in AttributeDefinitions],
                "BillingModeSummary": {"BillingMode": BillingMode},
                "DeletionProtectionEnabled": DeletionProtectionEnabled,
            },
        )
        self.tables[TableName] = table
        if StreamSpecification is not None:
            self._set_stream(table, StreamSpecification, gate)
        return {"TableDescription": self._described(table)}

    def _set_stream(self, table: Table, wanted: Mapping[str, Any], gate: Gate) -> None:
        if wanted["StreamEnabled"]:
            if table.stream is not None:
                raise invalid(f"Table already has an enabled stream: TableName: {table.name}")
            table.stream = self.streams.begin(table.name, gate.now(), self.shards)
            table.description["StreamSpecification"] = dict(wanted)
            table.description["LatestStreamArn"] = table.stream.arn
            table.description["LatestStreamLabel"] = table.stream.label
        elif table.stream is not None:
            table.stream.end(gate.now())
            table.stream = None
            del table.description["StreamSpecification"]

    @staticmethod
    def _described(table: Table) -> dict[str, Any]:
        sizes = [size for rows in table.partitions.values() for _, size in rows.values()]
        copy: dict[str, Any] = json.loads(json.dumps(table.description))
        return {**copy, "ItemCount": len(sizes), "TableSizeBytes": sum(sizes)}

    @operation
    def describe_table(self, gate: Gate, *, TableName: str) -> dict[str, Any]:
        return {"Table": self._described(self.table(TableName))}

    @operation
    def update_table(
        self,
        gate: Gate,
        *,
        TableName: str,
        StreamSpecification: Mapping[str, Any] | None = None,
        DeletionProtectionEnabled: bool | None = None,
        WarmThroughput: Mapping[str, int] | None = None,
    ) -> dict[str, Any]:
        table = self.table(TableName)
        if StreamSpecification is not None:
            self._set_stream(table, StreamSpecification, gate)
        if DeletionProtectionEnabled is not None:
            table.description["DeletionProtectionEnabled"] = DeletionProtectionEnabled
        if WarmThroughput is not None:
            table.description["WarmThroughput"] = {**WarmThroughput, "Status": "ACTIVE"}
        return {"TableDescription": self._described(table)}

    @operation
    def delete_table(self, gate: Gate, *, TableName: str) -> dict[str, Any]:
        table = self.table(TableName)
        if table.description["DeletionProtectionEnabled"]:
            raise invalid(f"Resource cannot be deleted as it is currently protected: Table: {TableName}")
        if table.stream is not None:
            table.stream.end(gate.now())
        del self.tables[table.name]
        return {"TableDescription": self._described(table)}

    @operation
    def list_tables(self, gate: Gate) -> dict[str, Any]:
        return {"TableNames": sorted(self.tables)}

    @operation
    def update_time_to_live(
        self, gate: Gate, *, TableName: str, TimeToLiveSpecification: Mapping[str, Any]
    ) -> dict[str, Any]:
        table, wanted = self.table(TableName), TimeToLiveSpecification
        if wanted["Enabled"] == (table.ttl is not None):
            raise invalid(f"TimeToLive is already {'enabled' if wanted['Enabled'] else 'disabled'}")
        table.ttl = wanted["AttributeName"] if wanted["Enabled"] else None
        return {"TimeToLiveSpecification": dict(wanted)}

    @operation
    def describe_time_to_live(self, gate: Gate, *, TableName: str) -> dict[str, Any]:
        ttl = self.table(TableName).ttl
        on = {"TimeToLiveStatus": "ENABLED", "AttributeName": ttl}
        description = {"TimeToLiveStatus": "DISABLED"} if ttl is None else on
        return {"TimeToLiveDescription": description}

    @operation
    def update_continuous_backups(
        self, gate: Gate, *, TableName: str, PointInTimeRecoverySpecification: Mapping[str, Any]
    ) -> dict[str, Any]:
        self.table(TableName).recovery = bool(PointInTimeRecoverySpecification["PointInTimeRecoveryEnabled"])
        return self._backups(TableName)

    @operation
    def describe_continuous_backups(self, gate: Gate, *, TableName: str) -> dict[str, Any]:
        return self._backups(TableName)

    def _backups(self, name: str) -> dict[str, Any]:
        status = "ENABLED" if self.table(name).recovery else "DISABLED"
        backups = {
            "ContinuousBackupsStatus": "ENABLED",
            "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": status},
        }
        return {"ContinuousBackupsDescription": backups}
