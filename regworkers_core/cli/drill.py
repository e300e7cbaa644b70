"""`regworkers drill ...`: proving now what has to work one day."""

from __future__ import annotations

from typing import Annotated

import typer

from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, facts, progress
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime


def register(app: typer.Typer) -> None:
    drill = typer.Typer(help="Proves now what has to work one day.", no_args_is_help=True)
    drill.command("recovery")(recovery_command)
    # A group of one command would take its name away.
    drill.callback()(lambda: None)
    app.add_typer(drill, name="drill")


def recovery_command(
    max_entries: Annotated[
        int | None, typer.Option("--max-entries", min=1, help="so many entries; without it all of them")
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Rebuild the replica into a scratch database, compare it with the source, and say how long all would take.

    Reads the demand table and writes beside the real replica, which it does not touch; flags, queues and events stay as
    they are. The scratch database is dropped at the end. Exit code 1 when it differs or would take too long.
    """
    # Late, for it brings DuckDB and pyarrow.
    from regworkers_core.replication.recovery_drill import recovery_drill

    with progress("entries") as bar, StopSignal().on_signals() as stop:
        task = bar.add_task("drill", total=None)
        result = recovery_drill(
            Runtime.load(),
            most=max_entries,
            stop=stop,
            on_progress=lambda done, expected: bar.update(task, completed=done, total=expected),
            on_phase=lambda text: bar.update(task, description=text),
        )
    answer(result.as_dict(), form, None if form is Format.JSON else facts(result.as_dict(), "recovery drill"))
    if not result.passed:
        raise typer.Exit(FINDING)
