"""Around what an operator changes: it is written down before it is done, and what came of it after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer

from regworkers_core.runtime import Runtime


@contextmanager
def by_hand(
    runtime: Runtime,
    what: str,
    target: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    who: str = "",
    dry_run: bool = False,
) -> Iterator[dict[str, Any]]:
    """The block puts counts of what it did into the yielded dictionary. `what` is the command as it is typed; no
    argument is a fan's. A dry run changes nothing and is not recorded.

    Raises TransientFailure before the block runs when MongoDB does not answer: what nobody can write down is not done.
    A finding (`typer.Exit`) is a result and no failure.
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
