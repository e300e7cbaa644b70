"""`regworkers backfill`: send all keys again, at a bounded rate, and go on where it stopped."""

from __future__ import annotations

from typing import Annotated

import typer

from regworkers_core.cli.by_hand import by_hand
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, progress
from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.backfill import (
    BackfillProgress,
    backfill_status,
    pause_backfill,
    start_backfill,
)
from regworkers_core.runtime import Runtime

Id = Annotated[str | None, typer.Option("--id", help="which backfill [default: the campaign, or all]")]
HELP = """Send the keys of all entries, or of one campaign, to the replication queue again.

It cannot overwrite anything newer: the save drain reads the current state. Run the command again, or
`backfill resume`, to go on where a paused, stopped or killed one was; add --dry-run to count only.
"""


def register(app: typer.Typer) -> None:
    backfill = typer.Typer(help=HELP, invoke_without_command=True)
    backfill.callback()(run)
    backfill.command("pause")(pause)
    backfill.command("resume")(resume)
    backfill.command("status")(status)
    app.add_typer(backfill, name="backfill")


def run(
    context: typer.Context,
    campaign: Annotated[str | None, typer.Option(help="only this campaign")] = None,
    rate: Annotated[float | None, typer.Option(min=0.1, help="items a second [default: the setting]")] = None,
    segments: Annotated[int | None, typer.Option(min=1, max=64, help="parallel segments of the scan")] = None,
    backfill_id: Id = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="count what would be sent, send nothing")
    ] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    if context.invoked_subcommand is None:
        _run(campaign, rate, segments, backfill_id, dry_run, form)


def resume(
    campaign: Annotated[str | None, typer.Option(help="only this campaign")] = None,
    rate: Annotated[float | None, typer.Option(min=0.1, help="items a second")] = None,
    backfill_id: Id = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Go on where a paused or stopped backfill was."""
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
    target, arguments = _target(campaign, backfill_id), {"rate": rate, "segments": segments}
    with (
        by_hand(
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
    campaign: Annotated[str | None, typer.Option(help="the campaign's backfill")] = None,
    backfill_id: Id = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Ask a running backfill, wherever it runs, to stop; `resume` goes on."""
    runtime = Runtime.load()
    with by_hand(runtime, "backfill pause", _target(campaign, backfill_id)):
        paused = pause_backfill(runtime, campaign_id=campaign, backfill_id=backfill_id)
    answer(paused, form)


def status(
    campaign: Annotated[str | None, typer.Option(help="the campaign's backfill")] = None,
    backfill_id: Id = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """How far each segment is."""
    answer(backfill_status(Runtime.load(), campaign_id=campaign, backfill_id=backfill_id), form)


def _target(campaign: str | None, backfill_id: str | None) -> str:
    return backfill_id or campaign or "all campaigns"
