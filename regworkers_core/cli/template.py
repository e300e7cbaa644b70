"""`regworkers template update`: the scaffolding that this project shares with others, from their template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from regworkers_core.cli.changes import Change
from regworkers_core.cli.options import flatten_options
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer
from regworkers_core.domain.reasons import UsageError
from regworkers_core.operations.template import TemplateUpdate, update_from_template
from regworkers_core.settings import PROJECT_ROOT


def register(app: typer.Typer) -> None:
    template = typer.Typer(help="Scaffolding shared with other projects.", no_args_is_help=True)
    template.callback()(lambda: None)
    template.command("update")(update_command)
    app.add_typer(template, name="template")


@flatten_options
def update_command(
    change: Change,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="REPOSITORY|FOLDER",
            help="begin with this template, or where it has moved to [default: that of .copier-answers.yml]",
            show_default=False,
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
    """Show what an update from the template would change; with --apply change exactly that, uncommitted.

    Own changes stay: where template and project changed the same lines, the file has conflict markers and is named
    (exit code 1). Refuses while the working tree has uncommitted changes, and a template that would run commands.
    """
    update = update_from_template(
        project.absolute(), source=source, ref=ref, data=_answers(data or ()), apply=change.apply
    )
    answer(update.as_dict(), form, _told(update))
    if update.conflicts:
        raise typer.Exit(FINDING)


def _answers(pairs: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, equal, value = pair.partition("=")
        if not equal or not name:
            raise UsageError(f"--data takes QUESTION=ANSWER, found {pair!r}")
        found[name] = value
    return found


def _told(update: TemplateUpdate) -> RenderableType:
    """The diff as git prints it, so that it can be piped into anything; below it what to know of it."""
    versions = f"{update.before or 'nothing'} to {update.after}"
    if update.up_to_date:
        return Text(f"up to date with {update.template} at {update.after}")
    counted = [
        f"{len(files)} {what}"
        for files, what in ((update.added, "added"), (update.changed, "changed"), (update.removed, "removed"))
        if files
    ]
    lines = [f"{update.template}, {versions}: {', '.join(counted)}"]
    if update.conflicts:
        lines.append("conflicts, marked in the files: " + ", ".join(update.conflicts))
    if update.replaced:
        lines.append("content of this project that the template replaces: " + ", ".join(update.replaced))
    # Git knows nothing yet of files that were added.
    undo = (
        "`git restore .` and deleting what was added undo it" if update.added else "`git restore .` undoes it"
    )
    lines.append(
        f"applied: look at it with `git status` and `git diff`, then commit; {undo}"
        if update.applied
        else "nothing was changed: add --apply to apply exactly this"
    )
    return Group(Text(update.diff), *(Text(line) for line in lines))
