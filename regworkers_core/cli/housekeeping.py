"""`regworkers housekeeping`: apply the retention periods of the settings."""

from __future__ import annotations

import typer
from rich.console import Group
from rich.text import Text

from regworkers_core.cli.changes import Deletion, audited
from regworkers_core.cli.options import flatten_options
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, progress, rows
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.retention import RetentionReport, Size, all_parts, apply_retention
from regworkers_core.runtime import Runtime


def register(app: typer.Typer) -> None:
    app.command("housekeeping")(housekeeping_command)


@flatten_options
def housekeeping_command(change: Deletion, form: FormatOption = Format.TEXT) -> None:
    """Apply retention: delete what is past its period.

    The settings under `housekeeping` hold the periods of claims, pipeline files, messages, selections and codes of
    campaigns whose draw is over, closed alerts and dead letters, actions, drain statistics, reviews, days of the
    archive and databases of drills that died. Dagster's job prune_runs deletes old runs. Exits 1 if a part could not be
    read or deleted.
    """
    runtime = Runtime.load()
    environment = runtime.settings.environment
    if change.apply:
        change.confirm(f"what is past its retention period in {environment} will be deleted", environment)
    with progress("") as bar, StopSignal().on_signals() as stop:
        task = bar.add_task("housekeeping", total=len(list(all_parts(runtime))))

        def on_part(name: str) -> None:
            bar.update(task, description=name, advance=1)

        with audited(runtime, "housekeeping", environment, dry_run=change.dry_run) as result:
            done = apply_retention(runtime, dry_run=change.dry_run, stop=stop, on_part=on_part)
            result |= {part.name: part.deleted for part in done.parts if part.deleted}
    answer(done.as_dict(), form, None if form is Format.JSON else _text(done))
    if not done.fine:
        raise typer.Exit(FINDING)


def _text(done: RetentionReport) -> Group:
    lines = [
        (
            part.name,
            part.older_than_days,
            None if part.older_than_days is None or part.trouble else part.over,
            part.deleted,
            _size(part.before),
            _size(part.after),
            part.trouble or part.note or ("more is left for the next time" if part.more else ""),
        )
        for part in done.parts
    ]
    columns = ("what", "kept, days", "older", "deleted", "before", "after", "")
    advice = [Text("nothing was deleted: add --apply to delete what is older")] if done.dry_run else []
    return Group(rows(columns, lines, title="housekeeping"), *advice)


def _size(size: Size | None) -> str | None:
    if size is None:
        return None
    return f"{size.number:,}" if size.bytes is None else f"{size.number:,} ({size.bytes / 1024:,.0f} KiB)"
