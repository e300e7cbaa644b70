"""Control drains, follow one entry, and read who did what: for who is on call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from pydantic import Field, field_validator

from regworkers_core.adapters.mongo.activity import Action
from regworkers_core.domain.keys import (
    CAMPAIGN_ID_BYTES,
    ENTRY_ID_BYTES,
    EntryKey,
    campaign_id_problem,
    entry_id_problem,
    quoted,
    similar,
)
from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_core.domain.snapshot import PAUSE_SECONDS, BlownFuse, PausedDrain
from regworkers_core.domain.timestamps import iso, parse_since, span_seconds, to_second
from regworkers_core.engine.defects import remove_hold, store_pause
from regworkers_core.flows import DRAIN
from regworkers_core.operation import CAMPAIGN, Call, Effect, Input, Report, Table, operation
from regworkers_core.operations.alerts.notifier import acknowledge, incident_document
from regworkers_core.operations.cloudwatch import LogLine, Sought, look_up
from regworkers_core.operations.trace import GONE, IN_SYNC, trace_hops
from regworkers_core.replication.reconcile.repair import replicate as queue_again
from regworkers_core.runtime import Runtime

_SHOWN_FIRST = ("at", "where", "level", "worker", "event")
_DRAIN = f"Which drain: {', '.join(DRAIN)}."
_LONGEST_REASON = 300
# The stream keeps its records for a day.
_LONGEST_SECONDS = 86_400.0
PAUSE = f"{PAUSE_SECONDS / 60:.0f}m"


def pause_drain(runtime: Runtime, name: str, reason: str, *, by: str, lasts: str = PAUSE) -> PausedDrain:
    """Pause it for a time as `30m` or `2h`, after which an alert asks for it. Returns the pause in force, which may be
    an earlier one that is not over. Raises UsageError for an unknown drain, another form of time, and without a reason
    of one line.
    """
    _check(name)
    reason = reason.strip()
    if not reason.isprintable() or not 0 < len(reason) <= _LONGEST_REASON:
        raise UsageError(f"the reason of a pause is one line of 1 to {_LONGEST_REASON} characters")
    span, now = span_seconds(lasts) or 0.0, runtime.clock()
    if not 0 < span <= _LONGEST_SECONDS:
        raise UsageError(f"a pause lasts for {PAUSE}, 2h or another time up to 1d, not {lasts!r}")
    paused = PausedDrain(name, iso(now), by, reason, until=iso(now + span))
    return store_pause(runtime.leases, paused, now)


class Resumed(NamedTuple):
    """What was removed; None: it was not there."""

    fuse: BlownFuse | None
    pause: PausedDrain | None


def resume_drain(runtime: Runtime, name: str) -> Resumed:
    """Remove what keeps the drain from its work. Raises UsageError for an unknown drain."""
    _check(name)
    return Resumed(
        remove_hold(runtime.leases, BlownFuse, name), remove_hold(runtime.leases, PausedDrain, name)
    )


def _check(name: str) -> None:
    if name not in DRAIN:
        raise UsageError(f"unknown drain {quoted(name)}{similar(name, DRAIN)}: use {', '.join(DRAIN)}")


class Pause(Input):
    words: ClassVar = ("drain",)
    drain: str = Field(description=_DRAIN)
    reason: str = Field(description="Why, in words: no fan's data. Shown wherever the drain is.")
    lasts: str = Field(PAUSE, description="For how long: 30m or 2h, 1d at most; then an alert asks for it.")


class Acknowledgement(Input):
    words: ClassVar = ("alert",)
    alert: str = Field(
        "",
        description="Its key: `dead-letters:replication-queue`. Empty: list open incidents, with their keys.",
    )
    reason: str = Field("", description="Why, in words: no fan's data. Shown with the incident.")

    @property
    def dry_run(self) -> bool:
        """Listing is no change."""
        return not self.alert


class Resume(Input):
    words: ClassVar = ("drain",)
    drain: str = Field(description=_DRAIN)


def _checked(value: str, problem: str | None, most: int) -> str:
    if problem:
        size = len(value.encode(errors="surrogatepass"))
        raise ValueError(f"{problem}: it has {size} bytes, and an id has 1 to {most}")
    return value


class OneEntry(Input):
    words: ClassVar = ("campaign_id", "entry_id")
    campaign_id: str = Field(description=CAMPAIGN)
    entry_id: str = Field(description="The id of the entry in the campaign; no address, no name.")

    @field_validator("campaign_id")
    @classmethod
    def _is_a_campaign(cls, value: str) -> str:
        return _checked(value, campaign_id_problem(value), CAMPAIGN_ID_BYTES)

    @field_validator("entry_id")
    @classmethod
    def _is_an_entry(cls, value: str) -> str:
        return _checked(value, entry_id_problem(value), ENTRY_ID_BYTES)

    def key(self, call: Call) -> EntryKey:
        """The key of the entry, also of a campaign that is not known."""
        return EntryKey(call.campaign_id(self.campaign_id), self.entry_id)


class Logs(Input):
    words: ClassVar = ()
    correlation_id: str = Field("", description="The correlation id, as the trace of an entry shows it.")
    since: str = Field("1h", description="How far back: 90s, 30m, 1h, 2d.")
    campaign_id: str = Field("", description="With an entry: its campaign, by id or slug.")
    entry: str = Field("", description="With a campaign: one entry, its messages and runs.")


class Audit(Input):
    words: ClassVar = ()
    what: str = Field("", description="Only commands that begin with this: dlq, draw top-up. Empty: all.")
    since: str = Field(
        "",
        description="A day (2026-11-25), a time (2026-11-25T18:00:00Z) or how long ago (90m, 12h, 7d). Empty: ever.",
    )
    limit: int = Field(50, ge=1, le=10_000, description="Show at most this many.")


@operation("alerts ack", "acknowledge_alert", Effect.ADD, target="alert", quick=True)
def acknowledge_alert(call: Call, given: Acknowledgement) -> Report:
    """Acknowledge an incident: PagerDuty stops paging, and Slack names you. Without its key: list what is open.

    The incident stays open until its condition is over.
    """
    runtime = call.runtime
    done = acknowledge(runtime, given.alert, by=call.who, reason=given.reason) if given.alert else None
    open_ = runtime.incidents.all_open()
    mutes = runtime.mutes.in_force(runtime.clock())
    columns = ("since", "severity", "alert", "summary", "runbook", "acknowledged by")
    lines = [
        (
            each.opened_at,
            each.alert.severity.value,
            each.alert.key,
            each.alert.summary,
            f"docs/{each.alert.runbook}",
            each.acknowledged.by if each.acknowledged else "",
        )
        for each in open_
    ]
    return Report(
        document=incident_document(done, mutes)
        if done
        else [incident_document(each, mutes) for each in open_],
        facts={"open": len(lines)},
        tables=[Table("incidents", columns, lines)],
        counts={"serial": done.serial} if done else {},
        changed=done is not None,
    )


@operation("drain pause", "pause_drain", Effect.ADD, target="drain")
def pause(call: Call, given: Pause) -> Report:
    """Keep a drain from its work until it is resumed: none starts, and one at work stops within seconds.

    What it works on waits. One that is paused already keeps its first pause.
    """
    paused = pause_drain(call.runtime, given.drain, given.reason, by=call.who, lasts=given.lasts)
    return Report(
        document={"drain": paused.drain, **paused.as_dict()},
        facts={},
        said=[f"the drain {paused.drain} is {paused.text}"],
        counts={"since": paused.since, "until": paused.until},
    )


@operation("drain resume", "resume_drain", Effect.ADD, target="drain")
def resume(call: Call, given: Resume) -> Report:
    """End the pause of a drain and reset its fuse, so that it may start again.

    Its sensor starts it at the next tick with work.
    """
    fuse, paused = resume_drain(call.runtime, given.drain)
    said = [f"resumed: the drain {given.drain} was {paused.text}"] if paused else []
    counts: dict[str, Any] = {"removed": int(fuse is not None), "wasPaused": int(paused is not None)}
    if fuse is not None:
        counts |= {"fingerprint": fuse.fingerprint, "trippedAt": fuse.tripped_at}
        said.append(
            f"removed: the fuse of the drain {given.drain} had blown at {fuse.tripped_at} with {fuse.reason}"
        )
    nothing = f"the drain {given.drain} is not paused and its fuse is not blown: nothing was removed"
    return Report(
        document={
            "drain": given.drain,
            "removed": fuse.as_dict() if fuse else None,
            "paused": paused.as_dict() if paused else None,
        },
        facts={},
        said=said or [nothing],
        counts=counts,
    )


@operation("trace", "trace_entry")
def trace(call: Call, given: OneEntry) -> Report:
    """Show one entry's way from source to replica and on to the outbox, hop by hop, and what helps.

    Shows no fan's data, and names the command that finds its log lines. Fails unless the replica equals the source.
    """
    document, hops = trace_hops(call.runtime, given.key(call))
    lines = [
        (each.name, each.state, each.at, ", ".join(f"{name} {value}" for name, value in each.facts.items()))
        for each in hops
    ]
    fine = document["verdict"] in (IN_SYNC, GONE)
    return Report(
        document=document,
        facts={name: value for name, value in document.items() if name not in ("hops", "command", "logs")},
        tables=[Table("hops", ("hop", "state", "at", "facts"), lines)],
        said=[document[name] for name in ("command", "logs") if document[name]],
        left="" if fine else f"{document['verdict']}: {document['explanation']}",
    )


@operation("logs")
def logs(call: Call, given: Logs) -> Report:
    """Show the log lines of one correlation id or entry, the oldest first.

    For an entry also the lines that name it under another id (a removal has its message's), and those of the messages
    and runs that carried it. Fails if there is no line.
    """
    if bool(given.campaign_id) != bool(given.entry):
        raise RequestError("--campaign and --entry go together")
    if not given.correlation_id and not given.entry:
        raise RequestError("give --correlation-id, or --campaign and --entry")
    if (back := span_seconds(given.since)) is None:
        raise RequestError(f"--since takes a number with s, m, h or d, found {given.since!r}")
    start = iso(call.runtime.clock() - back)
    sought = Sought(start, given.correlation_id)
    if given.entry:
        key = OneEntry.of({"campaign_id": given.campaign_id, "entry_id": given.entry}, str).key(call)
        traced = trace_hops(call.runtime, key).document
        sought = _of_entry(traced, start, given.correlation_id, (key.campaign_id, key.entry_id))
    found = look_up(call.runtime, sought)
    # Without the ids that were asked for, which every line has.
    asked_for = (sought.correlation_id, *(sought.entry or ()))
    said = [_line(line, asked_for) for line in found.lines]
    if found.cut:
        said.append("there may be more lines: the newest are shown")
    nothing = f"nothing in {found.source} since {sought.since}: --since looks further back"
    return Report(
        document={
            "correlationId": sought.correlation_id or None,
            "runIds": sorted(sought.run_ids),
            "since": start,
            "source": found.source,
            "cut": found.cut,
            "lines": [line.as_dict() for line in found.lines],
        },
        facts={},
        said=said,
        left="" if found.lines else nothing,
    )


@operation("replicate", "replicate_entry", Effect.ADD, target="entry_id")
def replicate(call: Call, given: OneEntry) -> Report:
    """Queue one entry's key for replication, whatever its flag; a save drain then saves the state of the source.

    Fails if there is no such entry.
    """
    done = queue_again(call.runtime, given.key(call))
    return Report(
        document=done, left="" if done["sent"] else done["explanation"], counts={"sent": done["sent"]}
    )


@operation("audit", "show_audit")
def audit(call: Call, given: Audit) -> Report:
    """Show what operators changed, the latest first: commands, and runs that a person launched in Dagster.

    An action that is `running` is at work, or was killed.
    """
    found = call.runtime.operator_actions.history(
        what=given.what, since=parse_since(given.since, call.runtime.clock()), limit=given.limit
    )
    columns = ("when", "who", "what", "target", "outcome", "result")
    lines = [
        (to_second(each.started_at), each.who, each.what, each.target, each.outcome, _brief(each))
        for each in found
    ]
    asked = f" for a command that begins with {given.what!r}" if given.what else ""
    asked += f" since {given.since}" if given.since else ""
    return Report(
        document=[each.as_dict() for each in found],
        facts={},
        tables=[Table("log", columns, lines)],
        said=[] if found else [f"no action is recorded{asked}"],
    )


def _brief(action: Action) -> str | None:
    """The plain values of the result; the JSON document has the others."""
    plain = {name: value for name, value in action.result.items() if not isinstance(value, dict | list)}
    return ", ".join(f"{name} {value}" for name, value in plain.items()) or None


def _of_entry(trace: dict[str, Any], start: str, correlation_id: str, entry: tuple[str, str]) -> Sought:
    held = [trace["replica"] or {}, *trace["deadLetters"], *trace["hops"]]
    return Sought(
        start,
        correlation_id or trace["correlationId"] or "",
        frozenset(str(each["messageId"]) for each in held if each.get("messageId")),
        frozenset(str(each["runId"]) for each in held if each.get("runId")),
        entry,
    )


def _line(line: LogLine, asked_for: Sequence[str]) -> str:
    shown = line.as_dict()
    rest = ", ".join(
        f"{name} {value}"
        for name, value in shown.items()
        if name not in _SHOWN_FIRST and value not in asked_for
    )
    first = (str(shown.get(name) or "–") for name in ("level", "worker", "event"))
    return "  ".join((line.at, *first, rest))
