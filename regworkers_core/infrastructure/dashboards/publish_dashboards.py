"""Compares dashboard, alarms and saved queries with CloudWatch, and writes what differs if asked to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import unified_diff
from enum import StrEnum
from functools import partial
from itertools import chain
from typing import Any

import orjson

from fairdraw.documents import as_document
from regworkers_core.adapters.aws.answers import AwsRefusal, all_pages
from regworkers_core.domain.alert import Severity
from regworkers_core.infrastructure.dashboards.alarms import alarms, facts_of
from regworkers_core.infrastructure.dashboards.board import board_body, board_name, saved_queries
from regworkers_core.runtime import Runtime

_MISSING_BOARD = frozenset({"ResourceNotFound", "ResourceNotFoundException", "DashboardNotFoundError"})
# Answers of an emulator without saved queries.
_UNKNOWN_CALL = frozenset({"InvalidOperationException", "UnknownOperationException", "NotImplemented"})


class DashboardState(StrEnum):
    SAME = "same"
    NEW = "new"
    DIFFERS = "differs"
    UNAVAILABLE = "not available here"


@dataclass(frozen=True, slots=True)
class DashboardChange:
    """One resource: `kind` is dashboard, alarm or saved query; `diff` has a line for each difference."""

    kind: str
    name: str
    state: DashboardState
    diff: tuple[str, ...] = ()
    written: bool = False
    write: Callable[[], Any] | None = field(default=None, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        return as_document(self, "kind", "name", "state", "written", "diff")


def publish(
    runtime: Runtime, *, dry_run: bool = True, topics: Mapping[Severity, Sequence[str]] | None = None
) -> Iterator[DashboardChange]:
    """Yield each resource as it was found, and written unless `dry_run`. `topics` are the ARNs that alarms of a
    severity notify; without any, an existing alarm keeps its own. Raises TransientFailure, UsageError when AWS refuses.
    """
    for change in chain([_board(runtime)], _alarms(runtime, topics or {}), _queries(runtime)):
        if dry_run or change.write is None:
            yield change
            continue
        change.write()
        yield replace(change, written=True)


def _board(runtime: Runtime) -> DashboardChange:
    client, call = runtime.aws.client("cloudwatch"), runtime.dependency("cloudwatch").call
    name, body = board_name(runtime.settings), board_body(runtime.settings)
    try:
        existing = call(client.get_dashboard, DashboardName=name)["DashboardBody"]
    except AwsRefusal as error:
        if error.code not in _MISSING_BOARD:
            raise
        existing = None
    return _compared(
        "dashboard",
        name,
        None if existing is None else _pretty(existing),
        _pretty(body),
        partial(call, client.put_dashboard, DashboardName=name, DashboardBody=body),
    )


def existing_alarms(runtime: Runtime) -> list[Mapping[str, Any]]:
    """The alarms of this environment, as CloudWatch describes them. Raises TransientFailure."""
    return all_pages(
        partial(runtime.dependency("cloudwatch").call, runtime.aws.client("cloudwatch").describe_alarms),
        "MetricAlarms",
        ("NextToken", "NextToken"),
        AlarmNamePrefix=f"{runtime.names.prefix}regworkers-",
    )


def _alarms(runtime: Runtime, topics: Mapping[Severity, Sequence[str]]) -> Iterator[DashboardChange]:
    client, call = runtime.aws.client("cloudwatch"), runtime.dependency("cloudwatch").call
    existing = {each["AlarmName"]: each for each in existing_alarms(runtime)}
    for alarm in alarms(runtime.settings):
        before = existing.get(alarm.name)
        kept = topics.get(alarm.severity) or (before or {}).get("AlarmActions") or ()
        wanted = alarm.request(kept)
        yield _compared(
            "alarm",
            alarm.name,
            None if before is None else _lines(before),
            _lines(wanted),
            partial(call, client.put_metric_alarm, **wanted),
        )


def _queries(runtime: Runtime) -> Iterator[DashboardChange]:
    client, call = runtime.aws.client("logs"), runtime.dependency("logs").call
    try:
        found = all_pages(
            partial(call, client.describe_query_definitions),
            "queryDefinitions",
            ("nextToken", "nextToken"),
            queryDefinitionNamePrefix=f"{runtime.names.prefix}regworkers/",
        )
    except AwsRefusal as error:
        if error.code not in _UNKNOWN_CALL:
            raise
        for query in saved_queries(runtime.settings):
            yield DashboardChange("saved query", query.name, DashboardState.UNAVAILABLE)
        return
    existing: dict[str, Mapping[str, Any]] = {each["name"]: each for each in found}
    for query in saved_queries(runtime.settings):
        before = existing.get(query.name)
        wanted = query.request()
        if before is not None:
            # Without its id, CloudWatch would create another one of the same name.
            wanted["queryDefinitionId"] = before["queryDefinitionId"]
        yield _compared(
            "saved query",
            query.name,
            None
            if before is None
            else [str(before.get("queryString", "")), *before.get("logGroupNames", ())],
            [query.text, query.log_group],
            partial(call, client.put_query_definition, **wanted),
        )


def _compared(
    kind: str, name: str, existing: Sequence[str] | None, wanted: Sequence[str], write: Callable[[], Any]
) -> DashboardChange:
    if existing is None:
        return DashboardChange(kind, name, DashboardState.NEW, write=write)
    if list(existing) == list(wanted):
        return DashboardChange(kind, name, DashboardState.SAME)
    diff = unified_diff(existing, wanted, "found", "declared", lineterm="", n=1)
    return DashboardChange(kind, name, DashboardState.DIFFERS, tuple(diff), write=write)


def _pretty(body: str) -> list[str]:
    """Lines of a body; of one that is not JSON, as it is."""
    try:
        text = orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONDecodeError:
        text = body
    return text.splitlines()


def _lines(alarm: Mapping[str, Any]) -> list[str]:
    facts = {**facts_of(alarm), "notifies": ", ".join(sorted(alarm.get("AlarmActions") or ()))}
    return [f"{name}: {value}" for name, value in facts.items()]
