"""CloudWatch Logs: groups, streams and their events, as much as provisioning and the drains' log lines need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.simulation.gate import Gate
from tests.simulation.servers.client import Refused, operation


class _Group(dict[str, Any]):
    """What describes a group."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.streams: dict[str, list[dict[str, Any]]] = {}


class Logs:
    """An account's log groups in a region."""

    def __init__(self, region: str, account: str) -> None:
        self._place = f"arn:aws:logs:{region}:{account}:log-group:"
        self.groups: dict[str, _Group] = {}

    def _group(self, name: str) -> _Group:
        if name not in self.groups:
            raise Refused("ResourceNotFoundException", "The specified log group does not exist.")
        return self.groups[name]

    @operation
    def create_log_group(self, gate: Gate, *, logGroupName: str) -> dict[str, Any]:
        if logGroupName in self.groups:
            raise Refused("ResourceAlreadyExistsException", "The specified log group already exists")
        group = _Group(logGroupName=logGroupName, arn=f"{self._place}{logGroupName}:*")
        group["creationTime"] = int(gate.now() * 1000)
        self.groups[logGroupName] = group
        return {}

    @operation
    def describe_log_groups(self, gate: Gate, *, logGroupNamePrefix: str = "", **more: Any) -> dict[str, Any]:
        names = sorted(name for name in self.groups if name.startswith(logGroupNamePrefix))
        return {"logGroups": [dict(self.groups[name]) for name in names]}

    @operation
    def put_retention_policy(self, gate: Gate, *, logGroupName: str, retentionInDays: int) -> dict[str, Any]:
        self._group(logGroupName)["retentionInDays"] = retentionInDays
        return {}

    @operation
    def delete_log_group(self, gate: Gate, *, logGroupName: str) -> dict[str, Any]:
        self._group(logGroupName)
        del self.groups[logGroupName]
        return {}

    @operation
    def create_log_stream(self, gate: Gate, *, logGroupName: str, logStreamName: str) -> dict[str, Any]:
        streams = self._group(logGroupName).streams
        if logStreamName in streams:
            raise Refused("ResourceAlreadyExistsException", "The specified log stream already exists")
        streams[logStreamName] = []
        return {}

    @operation
    def put_log_events(
        self,
        gate: Gate,
        *,
        logGroupName: str,
        logStreamName: str,
        logEvents: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        streams = self._group(logGroupName).streams
        if logStreamName not in streams:
            raise Refused("ResourceNotFoundException", "The specified log stream does not exist.")
        times = [each["timestamp"] for each in logEvents]
        if times != sorted(times):
            raise Refused("InvalidParameterException", "Log events in a single request must be in order.")
        streams[logStreamName] += [dict(each) for each in logEvents]
        return {}

    @operation
    def get_log_events(
        self, gate: Gate, *, logGroupName: str, logStreamName: str, **more: Any
    ) -> dict[str, Any]:
        events = self._group(logGroupName).streams[logStreamName]
        return {"events": [dict(each) for each in events]}
