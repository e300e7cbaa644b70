"""Writes tables of the code between their marks in the docs: `make docs`. Tests compare the two.

Some simulate for minutes, and are written on request only: with `pages` which alerts page in simulated days, with
`seeds` what these show by seed, with `power` what simulated draws show of the bias audit, with `registrations` what
frauds and invented entries show in the log of registrations.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping

from benchmarks.page import ratios_table, rehearsal_table
from regworkers_core.acts import added_operations
from regworkers_core.drains.heartbeat import RESIDENT_BEAT_SECONDS
from regworkers_core.eligibility.rules import RULES
from regworkers_core.operations.alerts.conditions import CHECKS
from regworkers_core.operations.runbooks import cost
from regworkers_core.replication.enqueue.stream_source import CHECKPOINTS_PER_SECOND, idle_pause
from regworkers_core.settings import PROJECT_ROOT, EnqueueSettings, Settings, StreamSettings
from regworkers_dagster.definitions import tags_of_jobs
from regworkers_dagster.factories import POD_TAG
from regworkers_dagster.runs import MAX_RUNTIME_TAG
from tests.fairdraw.frauds.table import frauds_table
from tests.faults.matrix_table import matrix_table
from tools.audit_power import false_alarms_table, smallest_table
from tools.registration_log import arrivals_table, chances_table, planted_table
from tools.simulated_days import pages_table, seeds_table

SHARDS = (1, 40, 400, 10_000)


def rules_table() -> str:
    """The rules of eligibility in Markdown."""
    lines = ["| | code | fails when | needs | says to the fan |", "| ---: | --- | --- | --- | --- |"]
    lines += [
        f"| {number} | `{rule.code}` | {rule.fails_when} | {', '.join(rule.needs) or '–'} | {rule.message} |"
        for number, rule in enumerate(RULES, 1)
    ]
    return "\n".join(lines) + "\n"


_NO_ALERT = "none: only reviews ask it"


def conditions_table() -> str:
    """The checks in Markdown, one row for each."""
    columns = ("condition", "fires when", "severity", "key after `<condition>:`", "what to do")
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    lines += [
        f"| `{each.name}` | {each.fires} | {each.severity} | {each.key or _NO_ALERT} | "
        f"[{each.runbook.removesuffix('.md')}](runbooks/{each.runbook}) |"
        for each in CHECKS
    ]
    return "\n".join(lines) + "\n"


# Rows of `worker-leases`: what the consistent read of a page of them takes.
LEASE_ROW_BYTES = 270
_READ_UNIT_BYTES = 4096
_DAY_SECONDS = 86_400


def idle_reads_table() -> str:
    """What an idle stream costs a day, and how long a first entry waits to be read."""
    pace = StreamSettings()
    lines = [
        "| shards | each is read every | calls a second | a day | dollars a day | a first entry waits: p50, worst |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for shards in SHARDS:
        pause = idle_pause(pace, shards)
        calls = shards / pause
        lines.append(
            f"| {shards:,} | {pause:g} s | {calls:,.0f} | {calls * _DAY_SECONDS:,.0f} "
            f"| {calls * _DAY_SECONDS * cost.STREAM_READ:.2f} | {pause / 2:g} s, {pause:g} s |"
        )
    return "\n".join(lines) + "\n"


def lease_writes(busy_shards: int) -> float:
    """Writes a second of six residents: each its heartbeat, the enqueue drain that works the row that keeps its shards,
    and checkpoints of shards with records.
    """
    return (
        6 / RESIDENT_BEAT_SECONDS
        + 5 / EnqueueSettings().lease_seconds
        + min(busy_shards, CHECKPOINTS_PER_SECOND)
    )


def lease_reads(shards: int) -> float:
    """Read units a second of six residents: whether each is paused and who else is there, and of the two for the stream
    the rows of all shards, with each beat of the standby and three times in a lease of the one that works.
    """
    lease_seconds = EnqueueSettings().lease_seconds
    rows = math.ceil(shards * LEASE_ROW_BYTES / _READ_UNIT_BYTES)
    return 2 * 6 / RESIDENT_BEAT_SECONDS + rows * (5 + 3) / lease_seconds


def residents_table() -> str:
    """What heartbeats, leases and checkpoints of six residents cost a day."""
    lines = [
        "| shards | writes a day: idle, all busy | read units a day | dollars a day: idle, all busy |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for shards in SHARDS:
        idle, busy, reads = (
            each * _DAY_SECONDS for each in (lease_writes(0), lease_writes(shards), lease_reads(shards))
        )
        dollars = [
            writes * cost.DYNAMODB_WRITE_UNIT + reads * cost.DYNAMODB_READ_UNIT for writes in (idle, busy)
        ]
        lines.append(
            f"| {shards:,} | {idle:,.0f}, {busy:,.0f} | {reads:,.0f} | {dollars[0]:.2f}, {dollars[1]:.2f} |"
        )
    return "\n".join(lines) + "\n"


def _deployed() -> list[tuple[str, Mapping[str, str]]]:
    """Names and tags of the jobs of a deployment, which has none of the embedded stack."""
    local = {each.job for each in added_operations()}
    return [(name, tags) for name, tags in sorted(tags_of_jobs().items()) if name not in local]


def pods_table() -> str:
    """The pod of every job."""
    rows: dict[str, list[str]] = {}
    for name, tags in _deployed():
        pod = json.loads(tags[POD_TAG])
        resources = pod["container_config"]["resources"]
        requests, limits = resources["requests"], resources["limits"]
        cells = (
            f"`{pod['pod_spec_config']['service_account_name']}`",
            requests["cpu"],
            f"{requests['memory']}, {limits['memory']}",
            limits["ephemeral-storage"],
        )
        rows.setdefault(" | ".join(cells), []).append(f"`{name}`")
    lines = ["| jobs | account | CPU | memory: request, limit | disk |", "|---|---|---|---|---|"]
    return (
        "\n".join([*lines, *sorted(f"| {', '.join(names)} | {row} |" for row, names in rows.items())]) + "\n"
    )


def limits_table() -> str:
    """How long a run of each job may take."""
    rows: dict[str, list[str]] = {f"`dagster.{name}`": [] for name in ("maxRunSeconds", "maxLongRunSeconds")}
    settings = Settings().dagster
    limits = [f"{each:g}" for each in (settings.max_run_seconds, settings.max_long_run_seconds)]
    words = dict(zip(limits, rows, strict=True))
    for name, tags in _deployed():
        limit = tags.get(MAX_RUNTIME_TAG)
        rows.setdefault("none" if limit is None else words[limit], []).append(f"`{name}`")
    lines = ["| limit | jobs |", "|---|---|"]
    return "\n".join([*lines, *(f"| {limit} | {', '.join(names)} |" for limit, names in rows.items())]) + "\n"


# By the page below docs/ and the name in the marks around the table.
TABLES = {
    ("kubernetes.md", "pods"): pods_table,
    ("maintenance.md", "limits of runs"): limits_table,
    ("eligibility.md", "rules"): rules_table,
    ("alerts.md", "conditions"): conditions_table,
    ("reliability.md", "blindness matrix"): matrix_table,
    ("scaling.md", "idle reads"): idle_reads_table,
    ("scaling.md", "residents"): residents_table,
    ("fairness.md", "frauds"): frauds_table,
    ("fairness.md", "registrations, chances"): chances_table,
    ("../benchmarks/README.md", "ratios"): ratios_table,
    ("../benchmarks/README.md", "rehearsal"): rehearsal_table,
}
ON_REQUEST: Mapping[str, Mapping[tuple[str, str], Callable[[], str]]] = {
    "pages": {("alerts.md", "pages"): pages_table},
    "seeds": {("../benchmarks/reliability.md", "seeds"): seeds_table},
    "power": {
        ("fairness.md", "audit power"): smallest_table,
        ("fairness.md", "false alarms"): false_alarms_table,
    },
    "registrations": {
        ("fairness.md", "registrations, planted"): planted_table,
        ("fairness.md", "registrations, arrivals"): arrivals_table,
    },
}


def parts(page: str, name: str) -> tuple[str, str, str]:
    """The text of a page up to its table, the table, and the rest. Raises ValueError without its marks."""
    text = (PROJECT_ROOT / "docs" / page).read_text(encoding="utf-8")
    begin, end = (f"<!-- {name}: {mark} -->" for mark in ("begin", "end"))
    at, to = text.index(begin) + len(begin) + 1, text.index(end)
    return text[:at], text[at:to], text[to:]


if __name__ == "__main__":
    chosen = ON_REQUEST[sys.argv[1]] if sys.argv[1:] else TABLES
    for (page, name), table in chosen.items():
        before, _, after = parts(page, name)
        (PROJECT_ROOT / "docs" / page).write_text(before + table() + after, encoding="utf-8")
