"""What surrounds a change at the terminal: options, prompts and the audit log.

A command that changes or deletes what exists is a dry run until `--apply`: it has a parameter `change: Change`. Where
the change cannot be undone, it is a `Deletion`, which prompts for a word unless `--yes` is given. Commands that only
add act at once.
"""

from __future__ import annotations

import getpass
import os
import sys
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import require_word
from regworkers_core.runtime import Runtime


@dataclass(frozen=True)
class Change:
    """The options of a command that changes what exists."""

    apply: Annotated[bool, typer.Option("--apply", help="act; without it this is a dry run")] = False
    yes: Annotated[bool, typer.Option("--yes", help="with --apply: do not prompt")] = False

    def __post_init__(self) -> None:
        if self.yes and not self.apply:
            raise UsageError("--yes only skips the prompt: add --apply to act")

    @property
    def dry_run(self) -> bool:
        return not self.apply


@dataclass(frozen=True)
class Adoption(Change):
    """The options of a command that always creates what is missing."""

    apply: Annotated[
        bool,
        typer.Option(
            "--apply", help="also change what exists and differs; what is missing is created anyway"
        ),
    ] = False


class Deletion(Change):
    """The options of a command that cannot be undone. Raises UsageError for `--apply` where there is no terminal to
    prompt at.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.apply and not self.yes and not at_terminal():
            raise UsageError("--apply prompts before it acts, and there is no terminal: add --yes")

    def confirm(self, what: str, word: str) -> None:
        """Prompt for `word`, unless `--yes` is given. Raises UsageError for any other answer."""
        if not self.yes:
            require_word(ask(f"{what}; type {word} to confirm"), word)


def at_terminal() -> bool:
    """Whether an operator can see a prompt and answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str, variable: str | None = None, *, hidden: bool = False) -> str:
    """The value of the environment variable, else what is typed at a prompt on stderr; `hidden` does not echo it.
    Raises UsageError without a terminal and for an empty answer.
    """
    found = os.environ.get(variable, "").strip() if variable else ""
    if not found:
        if not sys.stdin.isatty():
            way_out = f"set {variable}" if variable else "add --yes"
            raise UsageError(f"{question}: stdin is not a terminal; {way_out}")
        try:
            found = (_typed_unseen if hidden else _typed)(f"{question}: ").strip()
        except (typer.Abort, KeyboardInterrupt, EOFError):
            raise UsageError("aborted: nothing was done") from None
    if not found:
        raise UsageError(f"{question}: the answer is empty, nothing was done")
    return found


def _typed(question: str) -> str:
    return str(typer.prompt(question, prompt_suffix="", err=True, default="", show_default=False))


def _typed_unseen(question: str) -> str:
    # Typer's own prompt stops the echo only after it has asked, so that a pasted secret would be seen.
    with warnings.catch_warnings():
        # Refuse a terminal that cannot stop the echo.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass(question, stream=sys.stderr)
        except getpass.GetPassWarning:
            raise UsageError("this terminal shows what is typed: set the environment variables") from None


def new_run_id() -> str:
    """A run id for a command, unique as those of Dagster's runs."""
    return f"cli-{uuid.uuid4().hex[:12]}"


@contextmanager
def audited(
    runtime: Runtime,
    what: str,
    target: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    who: str = "",
    dry_run: bool = False,
) -> Iterator[dict[str, Any]]:
    """Record the command `what` in the audit log before the block acts, and its result after it. The block puts counts
    into the yielded dictionary. No argument may hold a fan's data. A dry run is not recorded.

    Raises TransientFailure before the block runs if MongoDB does not answer: an action that cannot be recorded is not
    done. A finding (`typer.Exit`) is a result, not a failure.
    """
    if dry_run:
        yield {}
        return
    finding: typer.Exit | None = None
    given = {
        name: value
        for name, value in (arguments or {}).items()
        if value not in (None, "") and value is not False
    }
    with runtime.operator_actions.recorded(what, target, given, who=who) as result:
        try:
            yield result
        except typer.Exit as left:
            finding, result["exitCode"] = left, left.exit_code
    if finding is not None:
        raise finding
