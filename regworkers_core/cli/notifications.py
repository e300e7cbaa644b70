"""`regworkers notifications`: pause, resume, retry and count the messages to fans."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType

from regworkers_core.adapters.mongo.operator_actions import operator
from regworkers_core.cli.changes import audited
from regworkers_core.cli.options import market_in_words
from regworkers_core.cli.output import Format, FormatOption, answer, rows, to_second
from regworkers_core.domain.reasons import UsageError
from regworkers_core.runtime import Runtime
from regworkers_core.selection.notify import outbox

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
    counts = outbox.status(runtime, target)
    campaigns = counts["campaigns"].values()
    paused = counts["all"].get("paused") or any(each["switch"].get("paused") for each in campaigns)
    failed = any(_number(each, "failed") for each in campaigns)
    answer(counts, form, _counts_text(counts), finding=paused or failed)


def _number(campaign: dict[str, Any], name: str) -> int:
    """Over all phases and markets."""
    return sum(each[name] for phase in campaign["phases"].values() for each in phase["markets"].values())


def _counts_text(counts: dict[str, Any]) -> Group:
    """A table for each phase, and below what holds messages up."""
    tables: list[RenderableType] = []
    held = [_paused("everything", counts["all"])]
    for name, campaign in counts["campaigns"].items():
        held.append(_paused(name, campaign["switch"]))
        if waiting := _number(campaign, "waiting"):
            phase = campaign["waitsFor"]
            held.append(
                f"{name}: {waiting} messages wait, because phase {phase} changes them and is not confirmed yet"
            )
        if failed := _number(campaign, "failed"):
            held.append(
                f"{name}: {failed} messages failed; `regworkers notifications retry {name}` sends them again"
            )
        for phase, found in campaign["phases"].items():
            until = {each["heldUntil"] for each in found["markets"].values()} - {None}
            held += [f"{name}, phase {phase}: the canary holds the rest until {each}" for each in until]
            lines = [
                [
                    market_in_words(market),
                    each["status"],
                    each["pending"],
                    each["waiting"],
                    each["sent"],
                    each["superseded"],
                    each["failed"],
                    to_second(each["deliveredAt"]),
                ]
                for market, each in found["markets"].items()
            ]
            columns = ["market", "codes", "to send", "waiting", "sent", "superseded", "failed", "delivered"]
            tables.append(rows(columns, lines, title=f"{name}, phase {phase}"))
    held = [line for line in held if line]
    if not tables and not held:
        return Group("nothing is published yet: there are no messages")
    return Group(*tables, *held)


def _paused(what: str, state: dict[str, Any]) -> str:
    return (
        f"{what} is paused by {state['by']} since {state['at']}: {state['reason']}"
        if state.get("paused")
        else ""
    )


def _target(campaign_id: str | None, everything: bool) -> str | None:
    if everything == (campaign_id is not None):
        raise UsageError("name one campaign, or use --all")
    return campaign_id
