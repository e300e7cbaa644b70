"""`regworkers dependencies|template`: periodic maintenance."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from regworkers_core.cli.changes import Change
from regworkers_core.cli.options import flatten_options
from regworkers_core.cli.output import Format, FormatOption, answer, rows
from regworkers_core.domain.reasons import UsageError
from regworkers_core.operations.dependencies import LOCK, DependencyReport, read_dependencies
from regworkers_core.settings import PROJECT_ROOT


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
