"""`regworkers alerts`: list, acknowledge and mute incidents, and evaluate the conditions from outside of Dagster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from fairdraw import scheduling
from regworkers_core.adapters.alert_channels import TITLES
from regworkers_core.adapters.mongo.activity import operator
from regworkers_core.adapters.mongo.incidents import Incident, Mute
from regworkers_core.cli.changes import audited
from regworkers_core.cli.options import quick_runtime
from regworkers_core.cli.output import Format, FormatOption, answer, rows
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.snapshot import Snapshot
from regworkers_core.domain.timestamps import iso, span_seconds, to_second
from regworkers_core.operations.alerts.evaluate import OUTSIDE, evaluate
from regworkers_core.operations.alerts.notifier import incident_document, mute_document, notifier_of
from regworkers_core.operations.health.scheduler import read_scheduler
from regworkers_core.operations.health.snapshot import read_system
from regworkers_core.runtime import Runtime
from regworkers_core.settings import load_settings

Key = Annotated[str, typer.Argument(metavar="KEY", help="as `regworkers alerts` shows it")]
Pattern = Annotated[
    str, typer.Argument(metavar="KEY", help="a key, or the beginning of keys and a *: 'dead-letters:*'")
]
Reason = Annotated[str, typer.Option("--reason", help="why, for other operators")]
By = Annotated[str, typer.Option("--by", help="your name", default_factory=operator)]
Duration = Annotated[str, typer.Option("--for", metavar="DURATION", help="30m, 2h or 3d; 14d at most")]
_LONGEST_SECONDS = 14 * 86_400.0


@contextmanager
def _kept() -> Iterator[None]:
    """Names what keeps incidents and mutes from being read, and what helps."""
    try:
        yield
    except TransientFailure as failure:
        raise _mongo_unavailable(
            str(failure), "`regworkers alerts evaluate` looks without it and tells the channels"
        ) from None


def _mongo_unavailable(why: str, so: str) -> UsageError:
    start = "`regworkers local up` starts it"
    way_out = (
        start if load_settings().environment == "local-dev" else "docs/runbooks/time-outs.md says what helps"
    )
    return UsageError(f"MongoDB, which keeps the incidents, does not answer ({why}): {way_out}. {so}")


app = typer.Typer(invoke_without_command=True)


@app.callback()
def alerts(context: typer.Context, form: FormatOption = Format.TEXT) -> None:
    """List, acknowledge and mute incidents. Without a command: list what is open."""
    # Around every command of the group.
    context.with_resource(_kept())
    if context.invoked_subcommand is None:
        list_command(form)


@app.command("list")
def list_command(form: FormatOption = Format.TEXT) -> None:
    """List open incidents and mutes. Exits 1 if an incident is open."""
    runtime = quick_runtime()
    _answer(runtime, runtime.incidents.all_open(), form)


@app.command("show")
def show(key: Key, form: FormatOption = Format.TEXT) -> None:
    """Show one incident: its numbers, runbook and notifications. Exits 1 while it is open."""
    runtime = quick_runtime()
    incident = runtime.incidents.find(key)
    if incident is None:
        raise UsageError(f"no incident {key}: `regworkers alerts` lists what is open")
    answer(incident_document(incident, runtime.mutes.in_force(runtime.clock())), form, finding=incident.open)


@app.command("mute")
def mute(
    pattern: Pattern, duration: Duration, reason: Reason, by: By, form: FormatOption = Format.TEXT
) -> None:
    """Suppress notifications for a while. Incidents still open and close; those still open at the end are sent then."""
    seconds, runtime = _seconds(duration), quick_runtime()
    made = Mute(_pattern(pattern), by, iso(runtime.clock()), seconds, reason)
    with audited(runtime, "alerts mute", pattern, {"seconds": seconds, "reason": reason}, who=by) as result:
        runtime.mutes.put(made)
        result["until"] = made.until
    covered = [each.alert.key for each in runtime.incidents.all_open() if made.covers(each.alert.key)]
    answer({**mute_document(made), "openNow": covered}, form)


@app.command("unmute")
def unmute(pattern: Pattern, by: By, form: FormatOption = Format.TEXT) -> None:
    """End a mute and send the notifications that it suppressed."""
    runtime = quick_runtime()
    with audited(runtime, "alerts unmute", pattern, who=by) as result:
        if not runtime.mutes.remove(pattern):
            raise UsageError(f"nothing is muted under {pattern}: `regworkers alerts` lists mutes")
        owed = Mute(pattern, by, "", 0.0, "")
        waiting = [each for each in runtime.incidents.all() if owed.covers(each.alert.key)]
        notifier_of(runtime).notify(waiting)
        result["open"] = sum(each.open for each in waiting)
    answer({"unmuted": pattern, "open": [each.alert.key for each in waiting if each.open]}, form)


@app.command("evaluate")
def evaluate_command(form: FormatOption = Format.TEXT) -> None:
    """Evaluate all conditions once, from outside of Dagster: open and close incidents, and notify.

    For a cron job: a dead Dagster daemon sends no alert. Exits 1 if an incident is open or something could not be
    read, 2 if MongoDB does not answer.
    """
    runtime = quick_runtime()
    found = evaluate(runtime, _look(runtime), by=OUTSIDE)
    if found.outage and found.outage.is_blip(runtime):
        # Evaluate again now instead of at the next call: an operator waits for the answer.
        scheduling.sleep(runtime.settings.alerts.patience_seconds)
        found = evaluate(runtime, _look(runtime), by=OUTSIDE, outage=found.outage)
    if found.outage:
        people = sorted(found.outage.notified & TITLES.keys())
        none = f"neither {' nor '.join(TITLES.values())}"
        received = f"{' and '.join(people) or none} received it"
        raise _mongo_unavailable(
            next(iter(found.unknown.values())), f"No incident is opened or closed; {received}"
        )
    _answer(runtime, list(found.open), form, dict(found.unknown))


def _look(runtime: Runtime) -> Snapshot:
    return read_system(runtime, lambda: read_scheduler(runtime.dagster, runtime.clock()))


def _answer(
    runtime: Runtime, incidents: list[Incident], form: Format, unknown: dict[str, str] | None = None
) -> None:
    mutes = runtime.mutes.in_force(runtime.clock())
    document: dict[str, Any] = {
        "open": [incident_document(each, mutes) for each in incidents],
        "mutes": [mute_document(each) for each in mutes],
    }
    if unknown is not None:
        document["unknown"] = unknown
    answer(document, form, _in_words(incidents, mutes, unknown or {}), finding=incidents or unknown)


def _in_words(incidents: list[Incident], mutes: list[Mute], unknown: dict[str, str]) -> Group:
    parts: list[RenderableType] = []
    if incidents:
        columns = ["since", "severity", "key", "what", "state"]
        lines = [
            [
                to_second(each.opened_at),
                each.alert.severity.value,
                each.alert.key,
                each.alert.summary,
                _state(each, mutes),
            ]
            for each in sorted(incidents, key=lambda each: (each.alert.severity.value, each.opened_at))
        ]
        parts.append(rows(columns, lines))
        pages = dict.fromkeys(f"docs/{each.alert.runbook}" for each in incidents)
        parts.append(f"what to do: {', '.join(pages)}; `regworkers alerts ack KEY` takes one on")
    else:
        parts.append("no incident is open")
    # This is plain text: brackets in a reason are no markup.
    parts += [Text(f"{each.pattern} is muted by {each.by} until {each.until}: {each.why}") for each in mutes]
    parts += [Text(f"{name} could not be read: {why}") for name, why in unknown.items()]
    return Group(*parts)


def _state(incident: Incident, mutes: list[Mute]) -> str:
    muted = next((each for each in mutes if each.covers(incident.alert.key)), None)
    if muted:
        return f"muted until {to_second(muted.until)}"
    return f"taken on by {incident.acknowledged.by}" if incident.acknowledged else "open"


def _seconds(duration: str) -> float:
    seconds = 0.0 if duration.endswith("s") else span_seconds(duration) or 0.0
    if not 0 < seconds <= _LONGEST_SECONDS:
        raise UsageError(f"--for {duration}: say 30m, 2h or 3d, 14d at most")
    return seconds


def _pattern(pattern: str) -> str:
    if pattern in ("", "*"):
        raise UsageError(
            "a mute of everything would keep the next outage from you: name a condition, 'queue-depth:*'"
        )
    return pattern
