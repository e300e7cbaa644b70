"""`regworkers backfill`: send all keys again, at a bounded rate, and go on where it stopped."""

from __future__ import annotations

from typing import Annotated

import typer

from regworkers_core.cli.changes import Change, audited
from regworkers_core.cli.options import campaign_id_of, flatten_options
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, progress
from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.backfill import (
    BackfillProgress,
    backfill_status,
    pause_backfill,
    start_backfill,
)
from regworkers_core.runtime import Runtime

Campaign = Annotated[str | None, typer.Option(help="only this campaign, by id or slug")]
Id = Annotated[str | None, typer.Option("--id", help="which backfill [default: the campaign, or all]")]
HELP = """Send the keys of all entries, or of one campaign, to the replication queue again.

Without --apply it only counts them. A backfill cannot overwrite anything newer: the save drain reads the current state.
Run the command again, or `backfill resume`, to continue one that was paused, stopped or killed.
"""


def register(app: typer.Typer) -> None:
    backfill = typer.Typer(help=HELP, invoke_without_command=True)
    backfill.callback()(run)
    backfill.command("pause")(pause)
    backfill.command("resume")(resume)
    backfill.command("status")(status)
    app.add_typer(backfill, name="backfill")


@flatten_options
def run(
    context: typer.Context,
    change: Change,
    campaign: Campaign = None,
    rate: Annotated[float | None, typer.Option(min=0.1, help="items a second [default: the setting]")] = None,
    segments: Annotated[int | None, typer.Option(min=1, max=64, help="parallel segments of the scan")] = None,
    backfill_id: Id = None,
    form: FormatOption = Format.TEXT,
) -> None:
    if context.invoked_subcommand is None:
        _run(campaign, rate, segments, backfill_id, change.dry_run, form)


def resume(
    campaign: Campaign = None,
    rate: Annotated[float | None, typer.Option(min=0.1, help="items a second")] = None,
    backfill_id: Id = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Continue a paused, stopped or killed backfill."""
    _run(campaign, rate, None, backfill_id, False, form, only_resume=True)


def _run(
    campaign: str | None,
    rate: float | None,
    segments: int | None,
    backfill_id: str | None,
    dry_run: bool,
    form: Format,
    only_resume: bool = False,
) -> None:
    runtime = Runtime.load()
    campaign = campaign and campaign_id_of(runtime, campaign)
    target, arguments = _target(campaign, backfill_id), {"rate": rate, "segments": segments}
    with (
        audited(
            runtime, "backfill resume" if only_resume else "backfill", target, arguments, dry_run=dry_run
        ) as result,
        progress("keys") as bar,
        StopSignal().on_signals() as stop,
    ):
        task = bar.add_task("backfill", total=None)

        def show(so_far: BackfillProgress) -> None:
            bar.update(task, completed=so_far.sent, total=so_far.estimate)

        report = start_backfill(
            runtime,
            campaign_id=campaign,
            rate=rate,
            segments=segments,
            backfill_id=backfill_id,
            dry_run=dry_run,
            only_resume=only_resume,
            stop=stop,
            on_progress=show,
        )
        result |= {"ended": report.ended, "sent": report.sent_now}
    answer(report.as_dict(), form)
    if not report.finished:
        raise typer.Exit(FINDING)


def pause(
    campaign: Campaign = None,
    backfill_id: Id = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Ask a running backfill to stop, wherever it runs. `resume` continues it."""
    runtime = Runtime.load()
    campaign = campaign and campaign_id_of(runtime, campaign)
    with audited(runtime, "backfill pause", _target(campaign, backfill_id)):
        paused = pause_backfill(runtime, campaign_id=campaign, backfill_id=backfill_id)
    answer(paused, form)


def status(
    campaign: Campaign = None,
    backfill_id: Id = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Show how far each segment is."""
    runtime = Runtime.load()
    campaign = campaign and campaign_id_of(runtime, campaign)
    answer(backfill_status(runtime, campaign_id=campaign, backfill_id=backfill_id), form)


def _target(campaign: str | None, backfill_id: str | None) -> str:
    return backfill_id or campaign or "all campaigns"
