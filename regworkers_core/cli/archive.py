"""`regworkers archive ...`: the events of Kafka as Parquet in S3."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from regworkers_core.cli.changes import new_run_id
from regworkers_core.cli.output import Format, FormatOption, answer, progress
from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime

app = typer.Typer(no_args_is_help=True)


@app.command("run")
def run_command(
    longest: Annotated[
        float | None,
        typer.Option("--max-seconds", min=0.1, help="stop after this time; the next run continues"),
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Archive new events, from where the last run stopped.

    Does nothing while another run is at work. Exits 1 if a dependency did not answer, or if events were damaged, lost
    or missing.
    """
    # Late, for they bring DuckDB and pyarrow.
    from regworkers_core.analytics.archive.archiver import archive_events

    runtime = Runtime.load()
    with progress("events", "archive") as show, StopSignal().on_signals() as stop:
        report = archive_events(
            runtime,
            run_id=new_run_id(),
            max_seconds=longest,
            stop=stop,
            on_progress=show.progress,
        )
    answer(report.as_dict(), form, finding=report.finding)


@app.command("status")
def status_command(form: FormatOption = Format.TEXT) -> None:
    """Show what the archive holds, and how far each topic is ahead.

    Exits 1 if an operator has to act.
    """
    from regworkers_core.analytics.archive.reading import archive_status, is_finding

    status = archive_status(Runtime.load())
    answer(status, form, finding=is_finding(status))


@app.command("verify")
def verify_command(form: FormatOption = Format.TEXT) -> None:
    """Check that each event id has exactly one row. Exits 1 if not."""
    from regworkers_core.analytics.archive.reading import verify

    runtime = Runtime.load()
    with progress("files", "verify") as show:
        found = verify(
            runtime.objects,
            memory_mib=runtime.settings.archive.memory_mib,
            on_progress=show.progress,
        )
    answer(found.as_dict(), form, finding=not found.holds)


@app.command("fetch")
def fetch_command(
    folder: Annotated[
        Path, typer.Argument(help="becomes a copy: files that the archive no longer has are deleted")
    ],
    since: Annotated[str, typer.Option(help="first day, as 2026-11-25")] = "",
    until: Annotated[str, typer.Option(help="last day")] = "",
    type_: Annotated[
        list[str] | None, typer.Option("--type", help="only these types, e.g. entry.replicated")
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Copy the archive, or some days and types, to a folder of Parquet files."""
    from regworkers_core.analytics.archive.reading import EventFilter, fetch

    runtime = Runtime.load()
    with progress("files", "fetch") as show:
        paths = fetch(
            runtime.objects,
            folder,
            EventFilter(_day("since", since), _day("until", until), tuple(type_ or ())),
            on_progress=show.progress,
        )
    answer(
        {"folder": str(folder), "files": len(paths), "bytes": sum(path.stat().st_size for path in paths)},
        form,
    )


def _day(name: str, text: str) -> str:
    try:
        return text and date.fromisoformat(text).isoformat()
    except ValueError:
        raise UsageError(f"--{name} should be a day like 2026-11-25, found {text!r}") from None
