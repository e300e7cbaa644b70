"""`regworkers dlq ...`: dead letters by cause and one by one; redrive, drop, export; and who did what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import typer

from regworkers_core.analytics.publishing import refusal
from regworkers_core.cli import dlq_text as text
from regworkers_core.cli.changes import Change, Deletion
from regworkers_core.cli.options import flatten_options
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, progress
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.dead_letters import drop as dropping
from regworkers_core.operations.dead_letters import redrive as redriving
from regworkers_core.operations.dead_letters.audit import DLQ, name_cause
from regworkers_core.operations.dead_letters.browse import find_message, list_messages
from regworkers_core.operations.dead_letters.model import Choice, DeadQueue, dead_queue, dead_queues
from regworkers_core.operations.dead_letters.redrive import Callbacks
from regworkers_core.operations.dead_letters.report import count_causes
from regworkers_core.operations.dead_letters.verdict import SETTLED, Assessor, DeadLetterVerdict
from regworkers_core.runtime import Runtime

Queue = Annotated[str, typer.Argument(metavar="QUEUE", help="replication-queue, or replication, ...")]
AnyQueue = Annotated[
    str | None, typer.Argument(metavar="[QUEUE]", help="replication-queue, ... [default: all]")
]
QueueOption = Annotated[str | None, typer.Option("--queue", help="same as QUEUE")]
Verdicts = Annotated[
    list[DeadLetterVerdict] | None,
    typer.Option(
        "--verdict", help="drop this verdict; repeatable [default: superseded and gone]", show_default=False
    ),
]
HELP = """List, redrive and drop dead letters.

Messages are hidden from other consumers while a command reads them, then returned to the queue.
"""


@dataclass(frozen=True)
class Filters:
    """The options that choose dead letters."""

    reason: Annotated[
        str, typer.Option("--reason", help="only this reason: INVALID_ENTRY, ATTEMPTS_EXHAUSTED, ...")
    ] = ""
    campaign: Annotated[str, typer.Option(help="only messages about this campaign, by id or slug")] = ""
    fingerprint: Annotated[str, typer.Option(help="only this cause; a prefix is enough")] = ""
    older_than: Annotated[str, typer.Option(help="first failed before this age: 90s, 15m, 2h, 3d")] = ""
    newer_than: Annotated[str, typer.Option(help="first failed within this age: 90s, 15m, 2h, 3d")] = ""

    def choice(self, runtime: Runtime) -> Choice:
        """Raises UsageError for a value that is not valid."""
        return Choice.parse(
            reason=self.reason,
            campaign=self.campaign and runtime.campaigns.id_of(self.campaign),
            fingerprint=self.fingerprint,
            older=self.older_than,
            newer=self.newer_than,
        )


app = typer.Typer(help=HELP, no_args_is_help=True)


@app.command("groups")
@flatten_options
def groups(
    filters: Filters,
    queue: AnyQueue = None,
    queue_option: QueueOption = None,
    verdicts: Annotated[
        bool,
        typer.Option("--verdicts", help="also read the verdict of every message"),
    ] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Count dead letters by cause, the most frequent first. Exits 1 if there are any."""
    runtime = Runtime.load()
    choice = filters.choice(runtime)
    with _followed() as callbacks:
        found, seen = count_causes(
            runtime,
            _queues(runtime, queue, queue_option),
            choice,
            assess=Assessor(runtime, refusal) if verdicts else None,
            stopped=lambda: callbacks.stop.is_set,
            on_progress=callbacks.on_progress,
        )
    document = {**seen.as_dict(), "groups": [cause.as_dict() for cause in found]}
    answer(document, form, text.causes_text(document), finding=len(found) or seen.hidden or seen.partly)


@app.command("list")
@flatten_options
def list_(
    filters: Filters,
    queue: AnyQueue = None,
    queue_option: QueueOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="list at most this many messages")] = 20,
    form: FormatOption = Format.TEXT,
) -> None:
    """List dead letters, each with its current verdict. Exits 1 if there are any."""
    runtime = Runtime.load()
    choice = filters.choice(runtime)
    queues = _queues(runtime, queue, queue_option)
    found, seen = list_messages(runtime, queues, choice, Assessor(runtime, refusal), limit=limit)
    document = {
        **seen.as_dict(),
        "letters": [text.message_document(each) for each in found],
    }
    answer(document, form, text.messages_text(document), finding=found or seen.hidden)


@app.command("show")
def show(
    queue: Queue,
    message: Annotated[str, typer.Argument(metavar="ID", help="message id, or <campaignId>:<entryId>")],
    form: FormatOption = Format.TEXT,
) -> None:
    """Show one dead letter: attributes, items by id, the verdict on each. Exits 1 if it was not found, or if another
    consumer holds it at this moment.
    """
    runtime = Runtime.load()
    dead = dead_queue(runtime.names, queue)
    found, seen = find_message(runtime, dead, message, Assessor(runtime, refusal))
    if found is None:
        document: dict[str, object] = {"queue": dead.name, "id": message, "found": False, **seen.as_dict()}
        answer(document, form, text.not_found_text(document))
        raise typer.Exit(FINDING)
    answer(text.message_document(found, whole=True), form)


@app.command("redrive")
@flatten_options
def redrive(
    queue: Queue,
    filters: Filters,
    change: Change,
    at_once: Annotated[
        bool,
        typer.Option("--at-once", help="send without waiting for outcomes, as before drains are started"),
    ] = False,
    outcome_seconds: Annotated[
        float | None,
        typer.Option(min=0.1, help="wait this long for the next outcome [default: the setting, 120]"),
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.1, help="items a second [default: the setting]")] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Send dead letters back to their queue: of each cause 1, then 5, 20, 100, ... as long as few fail again.

    Exits 1 if a message that should be sent is still there.
    """
    runtime = Runtime.load()
    options = redriving.RedriveOptions(
        filters.choice(runtime),
        dry_run=change.dry_run,
        at_once=at_once,
        outcome_seconds=outcome_seconds,
        rate=rate,
    )
    dead = dead_queue(runtime.names, queue)
    with _followed() as callbacks:
        report = redriving.redrive(runtime, dead, Assessor(runtime, refusal), options, callbacks=callbacks)
    document = report.as_dict()
    answer(document, form, text.redrive_text(document), finding=not report.finished)


@app.command("drop")
@flatten_options
def drop(
    queue: Queue,
    filters: Filters,
    change: Deletion,
    verdict: Verdicts = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Delete dead letters that are superseded or gone (or have another verdict that you name), after a copy on S3.

    Without --apply it only counts. --apply prompts for the queue's name.
    """
    runtime = Runtime.load()
    dead = dead_queue(runtime.names, queue)
    chosen = frozenset(verdict) if verdict else SETTLED
    choice = filters.choice(runtime)

    def run(*, act: bool) -> dropping.DropReport:
        options = dropping.DropOptions(choice, chosen, dry_run=not act)
        with _followed() as callbacks:
            return dropping.drop(runtime, dead, Assessor(runtime, refusal), options, callbacks=callbacks)

    report = run(act=change.apply and change.yes)
    if change.apply and not change.yes and report.chosen:
        change.confirm(f"{report.chosen} messages of {dead.name} will be deleted", dead.source)
        report = run(act=True)
    document = report.as_dict()
    answer(document, form, text.drop_text(document), finding=not report.finished)


@app.command("export")
@flatten_options
def export(
    queue: Queue,
    filters: Filters,
    to: Annotated[str, typer.Argument(metavar="FILE|s3", help="a file, or s3 for the artefacts' bucket")],
    form: FormatOption = Format.TEXT,
) -> None:
    """Copy dead letters as JSON lines; the queue keeps them."""
    runtime = Runtime.load()
    choice = filters.choice(runtime)
    with _followed() as callbacks:
        report = dropping.export(
            runtime,
            dead_queue(runtime.names, queue),
            choice,
            to,
            stopped=lambda: callbacks.stop.is_set,
            on_progress=callbacks.on_progress,
        )
    answer(report.as_dict(), form, finding=report.seen.partly)


@app.command("name")
def name_(
    fingerprint: Annotated[
        str, typer.Argument(metavar="CAUSE", help="its fingerprint, as `groups` shows it")
    ],
    name: Annotated[str, typer.Option("--name", help="what operators call it")] = "",
    note: Annotated[str, typer.Option("--note", help="what they know of it: no fan's data")] = "",
    form: FormatOption = Format.TEXT,
) -> None:
    """Give a cause a name and a note that stay with it; without both remove them."""
    name_cause(Runtime.load(), fingerprint.strip().lower(), name, note)
    answer({"fingerprint": fingerprint, "name": name, "note": note}, form)


@app.command("history")
def history(
    limit: Annotated[
        int, typer.Option(min=1, max=1000, help="show at most this many, the latest first")
    ] = 20,
    form: FormatOption = Format.TEXT,
) -> None:
    """Show who redrove, dropped or exported what, when, and the outcome."""
    actions = Runtime.load().operator_actions.history(what=DLQ, limit=limit)
    # The target of each is a queue.
    document = [
        {"queue" if name == "target" else name: value for name, value in action.as_dict().items()}
        for action in actions
    ]
    answer(document, form, text.history_text(document))


@contextmanager
def _followed() -> Iterator[Callbacks]:
    """A progress bar. Ctrl-C stops between messages."""
    with progress("messages", "reading") as show, StopSignal().on_signals() as stop:
        yield Callbacks(
            stop,
            on_progress=lambda done, total: show(completed=done, total=total),
            on_phase=lambda phase: show(description=phase, completed=0, total=None),
        )


def _queues(runtime: Runtime, positional: str | None, option: str | None) -> list[DeadQueue]:
    wanted = positional or option
    return [dead_queue(runtime.names, wanted)] if wanted else list(dead_queues(runtime.names))
