"""`regworkers dlq ...`: dead letters by cause and one by one, sent again, dropped, exported; and who did what."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from regworkers_core.analytics.candidates import refusal
from regworkers_core.cli import dlq_text as text
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, progress
from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.dead_letters.browse import find_letter, group_letters, list_letters
from regworkers_core.operations.dead_letters.choosing import Choice
from regworkers_core.operations.dead_letters.drop import DropOptions
from regworkers_core.operations.dead_letters.drop import drop as drop_letters
from regworkers_core.operations.dead_letters.export import export as export_letters
from regworkers_core.operations.dead_letters.queues import DeadQueue, dead_queue, dead_queues
from regworkers_core.operations.dead_letters.redrive import Hooks, RedriveOptions
from regworkers_core.operations.dead_letters.redrive import redrive as redrive_letters
from regworkers_core.operations.dead_letters.truth import SETTLED, Truths, Verdict
from regworkers_core.operations.dead_letters.working import DLQ
from regworkers_core.runtime import Runtime

Queue = Annotated[str, typer.Argument(metavar="QUEUE", help="replication-queue, or replication, ...")]
AnyQueue = Annotated[
    str | None, typer.Argument(metavar="[QUEUE]", help="replication-queue, ... [default: all]")
]
QueueOption = Annotated[str | None, typer.Option("--queue", help="the same as QUEUE")]
Reason = Annotated[str, typer.Option("--reason", help="INVALID_ENTRY, ATTEMPTS_EXHAUSTED, ...")]
Campaign = Annotated[str, typer.Option("--campaign", help="only those about this campaign's id")]
Fingerprint = Annotated[str, typer.Option("--fingerprint", help="one cause, or the beginning of its name")]
Older = Annotated[str, typer.Option("--older-than", help="first failed so long ago: 90s, 15m, 2h, 3d")]
Newer = Annotated[str, typer.Option("--newer-than", help="first failed within: 90s, 15m, 2h, 3d")]
Verdicts = Annotated[
    list[Verdict] | None,
    typer.Option("--verdict", help="may be given again [default: superseded and gone]", show_default=False),
]
HELP = """Dead letters: what failed for good, why, and whether it is still needed.

A look hides what it reads from others for as long as it lasts, and leaves all of it where it is.
"""


def register(app: typer.Typer) -> None:
    group = typer.Typer(help=HELP, no_args_is_help=True)
    group.command("groups")(groups)
    group.command("list")(list_)
    group.command("show")(show)
    group.command("redrive")(redrive)
    group.command("drop")(drop)
    group.command("export")(export)
    group.command("history")(history)
    app.add_typer(group, name="dlq")


def groups(
    queue: AnyQueue = None,
    queue_option: QueueOption = None,
    reason: Reason = "",
    campaign: Campaign = "",
    fingerprint: Fingerprint = "",
    older_than: Older = "",
    newer_than: Newer = "",
    truth: Annotated[
        bool, typer.Option("--truth", help="with the verdict on every message: reads more")
    ] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Failures by cause, the most frequent first. Exit code 1 when there are any."""
    runtime = Runtime.load()
    choice = _choice(reason, campaign, fingerprint, older_than, newer_than)
    with progress("messages") as bar, StopSignal().on_signals() as stop:
        task = bar.add_task("looking", total=None)
        found, seen = group_letters(
            runtime,
            _queues(runtime, queue, queue_option),
            choice,
            judge=Truths(runtime, refusal) if truth else None,
            stopped=lambda: stop.is_set,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    document = {**seen.as_dict(), "groups": [group.as_dict() for group in found]}
    answer(document, form, text.groups_text(document))
    if len(found) or seen.hidden or seen.partly:
        raise typer.Exit(FINDING)


def list_(
    queue: AnyQueue = None,
    queue_option: QueueOption = None,
    reason: Reason = "",
    campaign: Campaign = "",
    fingerprint: Fingerprint = "",
    older_than: Older = "",
    newer_than: Newer = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="no more messages than this")] = 20,
    form: FormatOption = Format.TEXT,
) -> None:
    """Single letters, each beside the truth as it is now. Exit code 1 when there are any."""
    runtime = Runtime.load()
    choice = _choice(reason, campaign, fingerprint, older_than, newer_than)
    queues = _queues(runtime, queue, queue_option)
    found, seen = list_letters(runtime, queues, choice, Truths(runtime, refusal), limit=limit)
    document = {**seen.as_dict(), "letters": [text.letter_document(each) for each in found]}
    answer(document, form, text.letters_text(document))
    if found or seen.hidden:
        raise typer.Exit(FINDING)


def show(
    queue: Queue,
    letter: Annotated[str, typer.Argument(metavar="ID", help="message id, or <campaignId>:<entryId>")],
    form: FormatOption = Format.TEXT,
) -> None:
    """One letter: attributes, items by id, the truth about each. Exit code 1 when it is not there, or among those that
    others hold just now.
    """
    runtime = Runtime.load()
    dead = dead_queue(runtime.names, queue)
    found, seen = find_letter(runtime, dead, letter, Truths(runtime, refusal))
    if found is None:
        document: dict[str, object] = {"queue": dead.name, "id": letter, "found": False, **seen.as_dict()}
        answer(document, form, text.not_found_text(document))
        raise typer.Exit(FINDING)
    answer(text.letter_document(found, whole=True), form)


def redrive(
    queue: Queue,
    reason: Reason = "",
    campaign: Campaign = "",
    fingerprint: Fingerprint = "",
    older_than: Older = "",
    newer_than: Newer = "",
    yes: Annotated[bool, typer.Option("--yes", help="send; without it everything is only counted")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only count, which is the default")] = False,
    canary: Annotated[
        int | None, typer.Option(min=0, help="of each cause first [default: the setting, 5]")
    ] = None,
    canary_seconds: Annotated[
        float | None, typer.Option(min=0.1, help="how long they are waited for")
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.1, help="items a second [default: the setting]")] = None,
    own_mover: Annotated[bool, typer.Option("--own-mover", help="never let SQS move a whole queue")] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Send what may still be needed to its queue again: a few of each cause first, the rest if these do not fail.

    Exit code 1 when something that should go is still there.
    """
    if yes and dry_run:
        raise UsageError("--yes sends and --dry-run does not: say one of them")
    runtime = Runtime.load()
    options = RedriveOptions(
        _choice(reason, campaign, fingerprint, older_than, newer_than),
        dry_run=not yes,
        canary_messages=canary,
        canary_seconds=canary_seconds,
        rate=rate,
        by_sqs=not own_mover,
    )
    with _followed() as hooks:
        report = redrive_letters(
            runtime, dead_queue(runtime.names, queue), Truths(runtime, refusal), options, hooks=hooks
        )
    document = report.as_dict()
    answer(document, form, text.redrive_text(document))
    if not report.finished:
        raise typer.Exit(FINDING)


def drop(
    queue: Queue,
    verdict: Verdicts = None,
    reason: Reason = "",
    campaign: Campaign = "",
    fingerprint: Fingerprint = "",
    older_than: Older = "",
    newer_than: Newer = "",
    confirm: Annotated[
        str, typer.Option("--confirm", metavar="QUEUE", help="the queue's name once more")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only count, ask nothing")] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Delete those that are superseded or gone (or have another verdict that you name), after a copy on S3.

    Without --confirm it counts and asks for the queue's name, or only counts where nobody can be asked.
    """
    runtime = Runtime.load()
    dead = dead_queue(runtime.names, queue)
    if confirm and not dry_run:
        _require_name(dead, confirm)
    chosen = frozenset(verdict) if verdict else SETTLED
    choice = _choice(reason, campaign, fingerprint, older_than, newer_than)
    truths = Truths(runtime, refusal)
    acts = bool(confirm) and not dry_run
    with _followed() as hooks:
        options = DropOptions(choice, chosen, dry_run=not acts)
        report = drop_letters(runtime, dead, truths, options, stop=hooks.stop, on_progress=hooks.on_progress)
    if not acts and not dry_run and report.chosen and sys.stdin.isatty() and sys.stderr.isatty():
        typer.echo(f"{report.chosen} messages of {dead.name} would be dropped", err=True)
        _require_name(dead, typer.prompt(f"type {dead.source} to drop them", err=True))
        with _followed() as hooks:
            options = DropOptions(choice, chosen, dry_run=False)
            report = drop_letters(
                runtime, dead, truths, options, stop=hooks.stop, on_progress=hooks.on_progress
            )
    document = report.as_dict()
    answer(document, form, text.drop_text(document))
    if not report.finished:
        raise typer.Exit(FINDING)


def export(
    queue: Queue,
    to: Annotated[str, typer.Argument(metavar="FILE|s3", help="a file, or s3 for the artefacts' bucket")],
    reason: Reason = "",
    campaign: Campaign = "",
    fingerprint: Fingerprint = "",
    older_than: Older = "",
    newer_than: Newer = "",
    form: FormatOption = Format.TEXT,
) -> None:
    """Copy letters as JSON lines; the queue keeps them."""
    runtime = Runtime.load()
    choice = _choice(reason, campaign, fingerprint, older_than, newer_than)
    with _followed() as hooks:
        report = export_letters(
            runtime,
            dead_queue(runtime.names, queue),
            choice,
            to,
            stopped=lambda: hooks.stop.is_set,
            on_progress=hooks.on_progress,
        )
    answer(report.as_dict(), form)
    if report.seen.partly:
        raise typer.Exit(FINDING)


def history(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="the latest so many")] = 20,
    form: FormatOption = Format.TEXT,
) -> None:
    """Who sent, dropped or exported what, when, and what came of it."""
    actions = Runtime.load().operator_actions.history(what=DLQ, limit=limit)
    document = [text.action_document(action) for action in actions]
    answer(document, form, text.history_text(document))


@contextmanager
def _followed() -> Iterator[Hooks]:
    """A progress bar, and Ctrl-C as a stop that leaves nothing half done."""
    with progress("messages") as bar, StopSignal().on_signals() as stop:
        task = bar.add_task("looking", total=None)
        yield Hooks(
            stop,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            on_phase=lambda phase: bar.update(task, description=phase, completed=0, total=None),
        )


def _queues(runtime: Runtime, positional: str | None, option: str | None) -> list[DeadQueue]:
    wanted = positional or option
    return [dead_queue(runtime.names, wanted)] if wanted else list(dead_queues(runtime.names))


def _choice(reason: str, campaign: str, fingerprint: str, older: str, newer: str) -> Choice:
    return Choice.parse(reason=reason, campaign=campaign, fingerprint=fingerprint, older=older, newer=newer)


def _require_name(queue: DeadQueue, typed: str) -> None:
    if typed.strip() not in (queue.source, queue.name):
        raise UsageError(f"{typed.strip()!r} is not {queue.source}: nothing was dropped")
