"""Questions at the terminal whose answers nobody sees: neither on the screen nor in the shell's history."""

from __future__ import annotations

import getpass
import os
import sys
import warnings

import typer

from regworkers_core.domain.reasons import UsageError


def asked(what: str, variable: str | None, *, hidden: bool = True) -> str:
    """From the environment variable, else typed; the question goes to stderr. Raises UsageError where nobody can be
    asked, and for an empty answer.
    """
    found = os.environ.get(variable, "").strip() if variable else ""
    if not found:
        if not sys.stdin.isatty():
            way_out = f"set {variable}" if variable else "give --yes"
            raise UsageError(f"{what}: there is no terminal to ask at: {way_out}")
        try:
            found = (_hidden if hidden else _shown)(f"{what}: ").strip()
        except (typer.Abort, KeyboardInterrupt, EOFError):
            raise UsageError("nothing was done") from None
    if not found:
        raise UsageError(f"{what} is empty: nothing was done")
    return found


def _shown(question: str) -> str:
    return str(typer.prompt(question, prompt_suffix="", err=True, default="", show_default=False))


def _hidden(question: str) -> str:
    # Not typer's: it asks first and stops the echo then, which shows the start of what is pasted at once.
    with warnings.catch_warnings():
        # Where the echo cannot be stopped, nothing may be typed.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass(question, stream=sys.stderr)
        except getpass.GetPassWarning:
            raise UsageError("this terminal would show what is typed: use the variables") from None
