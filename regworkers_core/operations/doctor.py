"""The doctor: the rows of a snapshot and what the checks of alerts find in it at one evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fairdraw.documents import as_document, as_json
from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.snapshot import Snapshot, Unread
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.alerts.conditions import TABLE
from regworkers_core.operations.alerts.conditions.condition import Check, Context, Finding
from regworkers_core.operations.alerts.evaluate import SENSOR, assess, last_evaluation, still_since, watched
from regworkers_core.operations.dependency_status import (
    LOCAL_UP,
    needs_setting,
    read_in_parallel,
    stack_is_down,
    way_out,
)
from regworkers_core.operations.health.rows import SECTIONS, Row, RowState, rows_of
from regworkers_core.operations.runbook import CATALOG
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings

# None leads back here: a page whose first command is the doctor is named itself.
_COMMANDS = {
    each.page.removeprefix("docs/runbooks/"): each.command
    for each in CATALOG
    if each.command != "regworkers doctor"
}
# On top of the snapshot, and only if MongoDB has just answered.
_STORED_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """A finding of a condition."""

    # That of its alert.
    key: str
    # Where it is shown.
    section: str
    name: str
    # How bad it is.
    state: RowState
    summary: str
    # When its incident opened; None: no incident is open.
    since: str | None
    # The command that helps.
    help: str
    runbook: str
    # The key of the finding that causes it.
    because: str | None = None


@dataclass(frozen=True, slots=True)
class Examination:
    """What the doctor found."""

    # An ISO time.
    at: str
    environment: str
    rows: Sequence[Row]
    # Causes before their consequences.
    found: Sequence[Found]
    # Why a condition could not be evaluated, by its name.
    unjudged: Mapping[str, str]

    @property
    def state(self) -> RowState:
        return max((row.state for row in self.rows), key=lambda state: state.rank, default=RowState.FINE)

    @property
    def fine(self) -> bool:
        return not any(row.state.is_finding for row in self.rows)

    def section(self, name: str) -> list[Row]:
        return [row for row in self.rows if row.section == name]

    def as_dict(self) -> dict[str, Any]:
        """One JSON document; every section is a list of rows with `name`, `state`, `text`, `since` and `help`."""
        return as_document(self, "at", "environment", "fine", "state", "unjudged") | {
            "findings": as_json(self.found),
            **{name: [row.as_dict() for row in self.section(name)] for name in SECTIONS},
        }


_STACK_DOWN = Found(
    "stack-down:local-dev",
    "dependencies",
    "",
    RowState.CRITICAL,
    "the embedded stack is down",
    None,
    LOCAL_UP,
    "docs/environments.md",
)


def examine_snapshot(runtime: Runtime, snapshot: Snapshot) -> Examination:
    """Examine the snapshot with what earlier evaluations stored in MongoDB. Takes a second at most; without MongoDB no
    finding says since when it holds.
    """
    found: dict[str, Any] = {}
    if snapshot.dependencies.get("mongo") is None:
        looks = runtime.evaluation_state
        readers = {
            "incidents": runtime.incidents.all_open,
            "seen": lambda: last_evaluation(runtime, looks.evaluations().get(SENSOR), runtime.clock()),
            "beats": looks.beats,
            "suspected": looks.suspected,
        }
        read = read_in_parallel(readers, _STORED_SECONDS)
        found = {name: each for name, each in read.items() if not isinstance(each, Unread)}
    still = still_since(watched(snapshot, runtime.settings), found.get("beats", {}), runtime.clock())
    context = Context(snapshot, runtime.settings, found.get("seen"), still)
    return examine(context, found.get("incidents", ()), found.get("suspected"))


def examine(
    context: Context, incidents: Iterable[Incident], suspected: Mapping[str, float] | None = None
) -> Examination:
    """`incidents` are the open ones: they say since when. `suspected` has, by key, the first time (epoch seconds) of
    findings that must hold at two evaluations.
    """
    snapshot = context.snapshot
    # Those without a section need several evaluations; `dependency-down` and the rows show the same here.
    assessed = {check: assess(check, context, clock_ahead_seconds=0.0) for check in TABLE if check.section}
    findings = [
        (check, finding)
        for check, found in assessed.items()
        if not isinstance(found, Unread)
        for finding in found.findings
    ]
    keys = {check.key_of(finding.subject) for check, finding in findings}
    since = _since(incidents)
    began = {key: iso(at) for key, at in (suspected or {}).items()}
    for key, at in since.items():
        began[key] = min(at, began.get(key, at))
    found = [_found(check, finding, keys, since, began, context.settings) for check, finding in findings]
    if stack_is_down(snapshot.dependencies, context.settings):
        # The rows show each dependency; starting the stack is the only remedy.
        found = [_STACK_DOWN, *(each for each in found if each.section != "dependencies")]
    found.sort(key=lambda each: (each.because is not None, each.state is not RowState.CRITICAL))
    unread = {check: each for check, each in assessed.items() if isinstance(each, Unread)}
    rows = _rows_with_findings(rows_of(snapshot, context.settings), found)
    rows += _unread(unread, {row.text for row in rows}, context.settings)
    unjudged = {check.name: each.why for check, each in unread.items()}
    return Examination(snapshot.at, snapshot.environment, rows, found, unjudged)


def _unread(checks: Mapping[Check, Unread], shown: set[str], settings: Settings) -> Iterator[Row]:
    """A row for each check that could not read what no row shows."""
    for check, unread in checks.items():
        if unread.why not in shown:
            ways = way_out(unread.why, settings, unread.dependency)
            yield Row(check.name, unread.why, RowState.UNREAD, help=ways, section=check.section)


def _since(incidents: Iterable[Incident]) -> dict[str, str]:
    """When each incident opened, by key, including the members of groups."""
    since = {}
    for incident in incidents:
        since[incident.alert.key] = incident.opened_at
        for member in incident.alert.details.get("members", ()):
            since[f"{incident.alert.scope}:{member}"] = incident.opened_at
    return since


def _found(
    check: Check,
    finding: Finding,
    keys: set[str],
    since: Mapping[str, str],
    began: Mapping[str, str],
    settings: Settings,
) -> Found:
    key, page = check.key_of(finding.subject), finding.page or check.runbook
    section = finding.section or check.section
    name = finding.subject if finding.row is None else finding.row
    helps = SECTIONS[section].helps(name, settings) or _COMMANDS.get(page, "")
    return Found(
        key,
        section,
        name,
        RowState.of(finding.severity),
        finding.summary,
        since.get(key),
        way_out(finding.summary, settings, name if section == "dependencies" else "")
        or finding.remedy
        or ("" if needs_setting(finding.summary) else helps),
        f"docs/runbooks/{page}",
        next((cause for cause in finding.because if cause in keys and _came_first(cause, key, began)), None),
    )


def _came_first(cause: str, key: str, began: Mapping[str, str]) -> bool:
    """A finding without a known start may have begun at any time."""
    return key not in began or began.get(cause, "~") <= began[key]


def _rows_with_findings(rows: Sequence[Row], found: Sequence[Found]) -> list[Row]:
    """Each row with its worst finding; a finding about no row becomes a row."""
    by_place: dict[tuple[str, str], list[Found]] = {}
    for each in found:
        by_place.setdefault((each.section, each.name), []).append(each)
    complete = [_with_finding(row, by_place.pop((row.section, row.name), [])) for row in rows]
    for (section, name), rest in by_place.items():
        complete.append(_with_finding(Row(name, rest[0].summary, section=section), rest))
    return complete


def _with_finding(row: Row, found: Sequence[Found]) -> Row:
    if not found:
        return row
    worst = max(found, key=lambda each: each.state.rank)
    return replace(row, state=worst.state, since=worst.since or row.since, help=worst.help)
