"""`regworkers notifications`: pause, resume, retry and count the messages to fans."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Group

from regworkers_core.adapters.mongo.operator_actions import operator
from regworkers_core.cli.changes import audited
from regworkers_core.cli.output import Format, FormatOption, answer, rows, to_second
from regworkers_core.domain.reasons import UsageError
from regworkers_core.runtime import Runtime
from regworkers_core.selection.notify import outbox
from regworkers_core.selection.notify.status import COLUMNS, delays, findings, lines, message_counts

Campaign = Annotated[str | None, typer.Argument(metavar="CAMPAIGN", show_default=False, help="id or slug")]
Everything = Annotated[bool, typer.Option("--all", help="all campaigns, future ones included")]
Reason = Annotated[str, typer.Option("--reason", help="why, for other operators")]
By = Annotated[str, typer.Option("--by", help="your name", default_factory=operator)]


app = typer.Typer(help="Pause, resume, retry and count messages to fans.", no_args_is_help=True)


@app.command("pause")
def pause(
    reason: Reason,
    by: By,
    campaign_id: Campaign = None,
    everything: Everything = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Stop queueing messages. Messages already queued are still sent."""
    target, runtime = _target(campaign_id, everything), Runtime.load()
    campaign = target and runtime.campaigns.id_of(target)
    with audited(runtime, "notifications pause", campaign or "all campaigns", {"reason": reason}, who=by):
        done = outbox.pause(runtime, campaign, reason=reason, by=by)
    answer(done, form)


@app.command("resume")
def resume(
    reason: Reason,
    by: By,
    campaign_id: Campaign = None,
    everything: Everything = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Resume messages; no message is sent twice.

    A campaign that was paused by itself stays paused when --all is resumed.
    """
    target, runtime = _target(campaign_id, everything), Runtime.load()
    campaign = target and runtime.campaigns.id_of(target)
    with audited(runtime, "notifications resume", campaign or "all campaigns", {"reason": reason}, who=by):
        done = outbox.resume(runtime, campaign, reason=reason, by=by)
    answer(done, form)


@app.command("retry")
def retry(
    campaign_id: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="id or slug")],
    by: By,
    form: FormatOption = Format.TEXT,
) -> None:
    """Send FAILED messages again.

    After a blown fuse use `drain resume notifications`.
    """
    runtime = Runtime.load()
    campaign = runtime.campaigns.id_of(campaign_id)
    with audited(runtime, "notifications retry", campaign, {}, who=by) as result:
        done = outbox.retry(runtime, campaign, by=by)
        result |= {"messages": done["messages"]}
    answer(done, form)


@app.command("status")
def status(
    campaign_id: Campaign = None, everything: Everything = False, form: FormatOption = Format.TEXT
) -> None:
    """Count messages by market: pending, waiting, sent, superseded, failed.

    Waiting messages are held by a later phase that is not confirmed. Exits 1 while something is paused, and if messages
    failed.
    """
    runtime = Runtime.load()
    target = None if everything or campaign_id is None else runtime.campaigns.id_of(campaign_id)
    counts = message_counts(runtime, target)
    found = findings(counts)
    answer(counts, form, _as_text(counts, [*found, *delays(counts)]), finding=found)


def _as_text(counts: dict[str, Any], sentences: list[str]) -> Group:
    found = lines(counts)
    if not found and not sentences:
        return Group("nothing is published yet: there are no messages")
    shown = [(*line, to_second(delivered)) for *line, delivered in found]
    return Group(*([rows(COLUMNS, shown)] if shown else []), *sentences)


def _target(campaign_id: str | None, everything: bool) -> str | None:
    if everything == (campaign_id is not None):
        raise UsageError("name one campaign, or use --all")
    return campaign_id
