"""Brings dashboard, alarms and saved queries to CloudWatch: first what differs, then, if wanted, the writing of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import unified_diff
from enum import StrEnum
from typing import Any

import orjson
from botocore.exceptions import ClientError

from regworkers_core.adapters.aws.clients import error_code
from regworkers_core.domain.alert import Severity
from regworkers_core.infrastructure.dashboards.alarms import alarms, facts_of
from regworkers_core.infrastructure.dashboards.board import board_body, board_name
from regworkers_core.infrastructure.dashboards.queries import saved_queries
from regworkers_core.runtime import Runtime

_MISSING_BOARD = frozenset({"ResourceNotFound", "ResourceNotFoundException", "DashboardNotFoundError"})
# What an emulator without saved queries answers.
_UNKNOWN_CALL = frozenset({"InvalidOperationException", "UnknownOperationException", "NotImplemented"})


class State(StrEnum):
    SAME = "same"
    NEW = "new"
    DIFFERS = "differs"
    UNAVAILABLE = "not available here"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing: `kind` is dashboard, alarm or saved query; `diff` has a line for each difference. `written` once it
    was.
    """

    kind: str
    name: str
    state: State
    diff: tuple[str, ...] = ()
    written: bool = False
    write: Callable[[], Any] | None = field(default=None, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "state": self.state.value,
            "written": self.written,
            "diff": list(self.diff),
        }


def publish(
    runtime: Runtime, *, dry_run: bool = True, topics: Mapping[Severity, Sequence[str]] | None = None
) -> Iterator[Change]:
    """Yields each thing as it was found, and written unless `dry_run`. `topics` are the ARNs that alarms of a level
    tell; none leaves those of an alarm that stands alone. Raises TransientFailure, UsageError when AWS refuses.
    """
    for change in _changes(runtime, topics or {}):
        if dry_run or change.write is None:
            yield change
            continue
        change.write()
        yield Change(change.kind, change.name, change.state, change.diff, written=True)


def _changes(runtime: Runtime, topics: Mapping[Severity, Sequence[str]]) -> Iterator[Change]:
    yield _board(runtime)
    yield from _alarms(runtime, topics)
    yield from _queries(runtime)


def _board(runtime: Runtime) -> Change:
    client, call = runtime.aws.client("cloudwatch"), runtime.dependency("cloudwatch").call
    name, body = board_name(runtime.settings), board_body(runtime.settings)
    try:
        stands = call(client.get_dashboard, DashboardName=name)["DashboardBody"]
    except ClientError as error:
        if error_code(error) not in _MISSING_BOARD:
            raise
        stands = None
    return _compared(
        "dashboard",
        name,
        None if stands is None else _pretty(stands),
        _pretty(body),
        lambda: call(client.put_dashboard, DashboardName=name, DashboardBody=body),
    )


def _alarms(runtime: Runtime, topics: Mapping[Severity, Sequence[str]]) -> Iterator[Change]:
    client, call = runtime.aws.client("cloudwatch"), runtime.dependency("cloudwatch").call
    stand: dict[str, Mapping[str, Any]] = {}
    request: dict[str, Any] = {"AlarmNamePrefix": f"{runtime.names.prefix}regworkers-"}
    while True:
        answer = call(client.describe_alarms, **request)
        stand |= {each["AlarmName"]: each for each in answer.get("MetricAlarms", ())}
        if not answer.get("NextToken"):
            break
        request["NextToken"] = answer["NextToken"]
    for alarm in alarms(runtime.settings):
        before = stand.get(alarm.name)
        kept = topics.get(alarm.severity) or (before or {}).get("AlarmActions") or ()
        wanted = alarm.request(kept)
        yield _compared(
            "alarm",
            alarm.name,
            None if before is None else _lines(before),
            _lines(wanted),
            lambda wanted=wanted: call(client.put_metric_alarm, **wanted),  # type: ignore[misc]
        )


def _queries(runtime: Runtime) -> Iterator[Change]:
    client, call = runtime.aws.client("logs"), runtime.dependency("logs").call
    stand: dict[str, Mapping[str, Any]] = {}
    request: dict[str, Any] = {"queryDefinitionNamePrefix": f"{runtime.names.prefix}regworkers/"}
    try:
        while True:
            answer = call(client.describe_query_definitions, **request)
            stand |= {each["name"]: each for each in answer.get("queryDefinitions", ())}
            if not answer.get("nextToken"):
                break
            request["nextToken"] = answer["nextToken"]
    except ClientError as error:
        if error_code(error) not in _UNKNOWN_CALL:
            raise
        for query in saved_queries(runtime.settings):
            yield Change("saved query", query.name, State.UNAVAILABLE)
        return
    for query in saved_queries(runtime.settings):
        before = stand.get(query.name)
        wanted = query.request()
        if before is not None:
            # Without its id another one of the same name would be made.
            wanted["queryDefinitionId"] = before["queryDefinitionId"]
        yield _compared(
            "saved query",
            query.name,
            None
            if before is None
            else [str(before.get("queryString", "")), *before.get("logGroupNames", ())],
            [query.text, query.log_group],
            lambda wanted=wanted: call(client.put_query_definition, **wanted),  # type: ignore[misc]
        )


def _compared(
    kind: str, name: str, stands: Sequence[str] | None, wanted: Sequence[str], write: Callable[[], Any]
) -> Change:
    if stands is None:
        return Change(kind, name, State.NEW, write=write)
    if list(stands) == list(wanted):
        return Change(kind, name, State.SAME)
    diff = unified_diff(stands, wanted, "stands", "declared", lineterm="", n=1)
    return Change(kind, name, State.DIFFERS, tuple(diff), write=write)


def _pretty(body: str) -> list[str]:
    """Lines of a body; one that is no JSON, from another hand, as it is."""
    try:
        text = orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONDecodeError:
        text = body
    return text.splitlines()


def _lines(alarm: Mapping[str, Any]) -> list[str]:
    facts = {**facts_of(alarm), "tells": ", ".join(sorted(alarm.get("AlarmActions") or ()))}
    return [f"{name}: {value}" for name, value in facts.items()]
