"""`regworkers housekeeping|review|dependencies|template`: periodic maintenance."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from regworkers_core.cli.changes import Change, Deletion, audited
from regworkers_core.cli.options import flatten_options
from regworkers_core.cli.output import Bar, Format, FormatOption, answer, progress, rows
from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.dependencies import LOCK, DependencyReport, read_dependencies
from regworkers_core.operations.retention import RetentionReport, Size, all_parts, apply_retention
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT

if TYPE_CHECKING:
    from regworkers_core.domain.drill import DrillResult
    from regworkers_core.operations.reviews.review import PublishedReview


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
    parts = list(all_parts(runtime))
    with (
        progress("", "housekeeping", len(parts)) as show,
        StopSignal().on_signals() as stop,
        audited(runtime, "housekeeping", environment, dry_run=change.dry_run) as result,
    ):
        done = apply_retention(
            parts,
            dry_run=change.dry_run,
            stop=stop,
            on_part=lambda name: show(description=name, advance=1),
        )
        result |= {part.name: part.deleted for part in done.parts if part.deleted}
    answer(done.as_dict(), form, _retention_table(done), finding=not done.fine)


def _retention_table(done: RetentionReport) -> Group:
    lines = [
        (
            part.name,
            part.older_than_days,
            None if part.older_than_days is None or part.trouble else part.over,
            part.deleted,
            _size_text(part.before),
            _size_text(part.after),
            part.trouble or part.note or ("more is left for the next time" if part.more else ""),
        )
        for part in done.parts
    ]
    columns = ("what", "kept, days", "older", "deleted", "before", "after", "")
    advice = [Text("nothing was deleted: add --apply to delete what is older")] if done.dry_run else []
    return Group(rows(columns, lines, title="housekeeping"), *advice)


def _size_text(size: Size | None) -> str | None:
    if size is None:
        return None
    return f"{size.number:,}" if size.bytes is None else f"{size.number:,} ({size.bytes / 1024:,.0f} KiB)"


FolderOption = Annotated[
    Path | None, typer.Option("--folder", help="write the report there instead of keeping it on S3")
]


review_app = typer.Typer(no_args_is_help=True)


@review_app.command("weekly")
def weekly_command(folder: FolderOption = None, form: FormatOption = Format.TEXT) -> None:
    """Compare dead letters, alerts, batch times and errors with the week before.

    Exits 1 if something has to be repaired, or could not be read.
    """
    _review("weekly", folder, form)


@review_app.command("monthly")
def monthly_command(folder: FolderOption = None, form: FormatOption = Format.TEXT) -> None:
    """Check limits of memory and batches, retention, certificates and cost.

    Exits 1 if something has to be repaired, or could not be read.
    """
    _review("monthly", folder, form)


@review_app.command("quarterly")
def quarterly_command(
    folder: FolderOption = None,
    max_entries: Annotated[
        int | None,
        typer.Option("--max-entries", min=1, help="entries of the drill [default: reviews.drillMaxEntries]"),
    ] = None,
    no_drill: Annotated[bool, typer.Option("--no-drill", help="leave out the recovery drill")] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Check least privilege and dependencies, and rehearse recovery.

    Exits 1 if something has to be repaired, or could not be read.
    """
    _review("quarterly", folder, form, drill=not no_drill, most=max_entries)


def _review(
    kind: str, folder: Path | None, form: Format, *, drill: bool = False, most: int | None = None
) -> None:
    # Late, for they bring matplotlib.
    from regworkers_core.operations.reviews.review import make_review, publish
    from regworkers_core.operations.reviews.sections import ReviewKind

    runtime = Runtime.load()
    with progress("", f"{kind} review") as show, StopSignal().on_signals() as stop:
        rehearse = _drill(runtime, stop, most, show) if drill else None
        review = make_review(runtime, ReviewKind(kind), drill=rehearse, tell=show.tell)
        published = publish(runtime, review, folder)
    document = {**review.as_dict(), "where": published.where, "trouble": published.trouble or None}
    answer(document, form, _review_text(published), finding=not published.fine)


def _drill(runtime: Runtime, stop: StopSignal, most: int | None, show: Bar) -> Callable[[], DrillResult]:
    from regworkers_core.replication.recovery_drill import recovery_drill

    limit = most or runtime.settings.reviews.drill_max_entries
    return lambda: recovery_drill(
        runtime,
        most=limit,
        stop=stop,
        on_phase=show.tell,
        on_progress=partial(show.progress, unit="entries"),
    )


def _review_text(published: PublishedReview) -> Group:
    review = published.review
    lines = [
        (each.title, f"unavailable: {each.unread}" if each.unread else each.lead) for each in review.sections
    ]
    said = [
        Text(f"{level}: {title}: {text}")
        for level in ("finding", "warning", "note")
        for title, text in review.remarks(level)
    ]
    where = Text(f"report: {published.where}" if published.where else published.trouble)
    return Group(rows(("section", ""), lines, title=review.title), *said, where)


def dependencies_command(
    lock: Annotated[Path, typer.Option(help="the lock file", show_default="requirements.lock")] = LOCK,
    form: FormatOption = Format.TEXT,
) -> None:
    """Report locked packages that are outdated or vulnerable.

    Exits 1 if a package is vulnerable. What cannot be read, e.g. offline, is reported as unknown and is no finding.
    """
    report = read_dependencies(lock)
    answer(report.as_dict(), form, _dependencies_text(report), finding=report.vulnerable)


def _dependencies_text(report: DependencyReport) -> RenderableType:
    parts: list[RenderableType] = [Text(f"{report.packages} packages are locked")]
    if report.vulnerable:
        lines = [
            (each.name, each.locked, each.id, ", ".join(each.fixed_in) or None) for each in report.vulnerable
        ]
        parts.append(rows(("vulnerable", "locked", "advisory", "fixed in"), lines))
    elif report.vulnerable is not None:
        parts.append(Text("no known vulnerability in the packages that were checked"))
    if report.outdated:
        late = [(each.name, each.locked, each.latest) for each in report.outdated]
        parts.append(rows(("outdated", "locked", "latest"), late))
        parts.append(Text("`make lock` updates those that the pins in pyproject.toml allow"))
    elif report.outdated is not None:
        parts.append(Text("no package is outdated"))
    parts += [Text(f"unknown: {note}") for note in report.notes]
    return Group(*parts)


template_app = typer.Typer(no_args_is_help=True)


@template_app.command("update")
@flatten_options
def update_command(
    change: Change,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="REPOSITORY|FOLDER", help="begin with this template", show_default=False
        ),
    ] = None,
    ref: Annotated[
        str | None,
        typer.Option(help="tag, branch or commit of it [default: the latest version]", show_default=False),
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="QUESTION=ANSWER of the template; may be repeated")
    ] = None,
    project: Annotated[
        Path, typer.Option(help="root of the git repository to update", show_default="this project")
    ] = PROJECT_ROOT,
    form: FormatOption = Format.TEXT,
) -> None:
    """Run `copier update`, or `copier copy` with --from; without --apply say to which version.

    Changes are left uncommitted, and an update keeps changes of the project. If template and project changed the same
    lines, the file gets conflict markers and is listed (exits 1). Refuses if the working tree has uncommitted changes,
    and a template that would run commands.
    """
    # Late: it takes half a second.
    from copier import run_copy, run_update
    from copier.errors import CopierError
    from plumbum import ProcessExecutionError

    if _git(project, "status", "--porcelain"):
        raise UsageError("the working tree has uncommitted changes: commit or stash them first")
    # A name of a folder is relative to the working directory, one in the answers to the project.
    begin = str(Path(source).resolve()) if source and Path(source).is_dir() else source
    os.environ.setdefault("GIT_TERMINAL_PROMPT", "0")
    os.environ.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    how: dict[str, Any] = {"data": _answers(data or ()), "vcs_ref": ref, "pretend": change.dry_run}
    how |= {"defaults": True, "overwrite": True, "quiet": True}
    try:
        with chdir(project):
            done = run_copy(begin, ".", **how) if begin else run_update(".", **how)
    except (CopierError, ProcessExecutionError, OSError, ValueError) as error:
        text = " ".join(str(getattr(error, "stderr", "") or error).split()) or type(error).__name__
        raise UsageError(f"copier: {_without_login(text)}") from None
    before = None if begin or done.subproject.template is None else done.subproject.template.commit
    conflicts = _git(project, "diff", "--name-only", "--diff-filter=U").splitlines()
    document = {
        "template": _without_login(done.template.url),
        "before": before,
        "after": done.template.commit,
        "upToDate": before == done.template.commit,
        "applied": change.apply,
        "conflicts": conflicts,
    }
    said = "`git diff` shows what changed; `git restore .` and deleting what was added undo it"
    if change.dry_run:
        said = "nothing was changed: add --apply to change it"
    marked = [f"conflicts, marked in the files: {', '.join(conflicts)}"] if conflicts else []
    lines = (f"{document['template']}, {before or 'nothing'} to {document['after']}", *marked, said)
    answer(document, form, Group(*map(Text, lines)), finding=conflicts)


def _without_login(text: str) -> str:
    return re.sub(r"(\w://)[^/@\s]+@", r"\1***@", text)


def _git(folder: Path, *words: str) -> str:
    """stdout. Raises UsageError with git's last line."""
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"git {words[0]}: {done.stderr.strip().rpartition(chr(10))[2]}")
    return done.stdout


def _answers(pairs: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, equal, value = pair.partition("=")
        if not equal or not name:
            raise UsageError(f"--data takes QUESTION=ANSWER, found {pair!r}")
        found[name] = value
    return found
