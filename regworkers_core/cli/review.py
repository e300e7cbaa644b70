"""`regworkers review ...`: the looks of every week, month and quarter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.text import Text

from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, progress, rows
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime

if TYPE_CHECKING:
    from regworkers_core.domain.drill import DrillResult
    from regworkers_core.operations.reviews.review import Published

FolderOption = Annotated[
    Path | None, typer.Option("--folder", help="write the report there instead of keeping it on S3")
]


def register(app: typer.Typer) -> None:
    review = typer.Typer(
        help="The looks of every week, month and quarter, as reports with plots.", no_args_is_help=True
    )
    review.command("weekly")(weekly_command)
    review.command("monthly")(monthly_command)
    review.command("quarterly")(quarterly_command)
    app.add_typer(review, name="review")


def weekly_command(folder: FolderOption = None, form: FormatOption = Format.TEXT) -> None:
    """Dead letters, alerts, how long batches take, which errors come and grow: this week against the one before.

    Exit code 1 when something has to be mended, or when somebody did not answer.
    """
    _review("weekly", folder, form)


def monthly_command(folder: FolderOption = None, form: FormatOption = Format.TEXT) -> None:
    """Memory and batches against their limits, retention against the settings, cost of a million entries, certificates.

    Exit code 1 when something has to be mended, or when somebody did not answer.
    """
    _review("monthly", folder, form)


def quarterly_command(
    folder: FolderOption = None,
    max_entries: Annotated[
        int | None,
        typer.Option("--max-entries", min=1, help="of the drill; without it reviews.drillMaxEntries"),
    ] = None,
    no_drill: Annotated[bool, typer.Option("--no-drill", help="leave out the recovery drill")] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Least privilege, outdated dependencies, and a recovery drill as `regworkers drill recovery` makes it.

    Exit code 1 when something has to be mended, or when somebody did not answer.
    """
    _review("quarterly", folder, form, drill=not no_drill, most=max_entries)


def _review(
    kind: str, folder: Path | None, form: Format, *, drill: bool = False, most: int | None = None
) -> None:
    # Late, for they bring matplotlib.
    from regworkers_core.operations.reviews.review import make_review, publish
    from regworkers_core.operations.reviews.sections import Kind

    runtime = Runtime.load()
    with progress("") as bar, StopSignal().on_signals() as stop:
        task = bar.add_task(f"{kind} review", total=None)
        rehearse = (
            _drill(runtime, stop, most, lambda text: bar.update(task, description=text)) if drill else None
        )
        review = make_review(
            runtime, Kind(kind), drill=rehearse, tell=lambda text: bar.update(task, description=text)
        )
        published = publish(runtime, review, folder)
    document = {**review.as_dict(), "where": published.where, "trouble": published.trouble or None}
    answer(document, form, None if form is Format.JSON else _text(published))
    if not published.fine:
        raise typer.Exit(FINDING)


def _drill(
    runtime: Runtime, stop: StopSignal, most: int | None, tell: Callable[[str], None]
) -> Callable[[], DrillResult]:
    from regworkers_core.replication.recovery_drill import recovery_drill

    limit = most or runtime.settings.reviews.drill_max_entries
    return lambda: recovery_drill(
        runtime,
        most=limit,
        stop=stop,
        on_phase=tell,
        on_progress=lambda done, expected: tell(f"recovery drill: {done:,} of {expected or '?'} entries"),
    )


def _text(published: Published) -> Group:
    review = published.review
    lines = [
        (each.title, f"not read: {each.unread}" if each.unread else each.lead) for each in review.sections
    ]
    said = [
        Text(f"{level}: {title}: {text}")
        for level in ("finding", "warning", "note")
        for title, text in review.remarks(level)
    ]
    where = Text(f"report: {published.where}" if published.where else published.trouble)
    return Group(rows(("section", ""), lines, title=review.title), *said, where)
