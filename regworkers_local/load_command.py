"""`regworkers load`: demo data into the demand table of a local stack."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from regworkers_core.cli.output import Format, FormatOption, answer, progress
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime


def load(
    entries: Annotated[int, typer.Option(min=1, help="new entries, over two campaigns")] = 20_000,
    updates: Annotated[float, typer.Option(min=0, max=1, help="share that is updated afterwards")] = 0.1,
    removals: Annotated[float, typer.Option(min=0, max=1, help="share that is removed afterwards")] = 0.02,
    rate: Annotated[
        float, typer.Option(min=0, help="new entries per second; 0 is as fast as possible")
    ] = 0.0,
    seed: Annotated[
        int | None, typer.Option(help="the same seed gives the same fans [default: new ones each time]")
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Write realistic entries, then update and remove a share of them. Only in local-dev."""
    from regworkers_local.load import Loader, LoadPlan

    runtime = Runtime.load()
    if runtime.settings.environment != "local-dev":
        raise UsageError(
            f"demo data is for local-dev, not for {runtime.settings.environment}: unset CONFIG_ENV"
        )
    loader = Loader(
        runtime, LoadPlan(entries, updates, removals, rate, int(time.time()) if seed is None else seed)
    )
    with progress("entries", "writing", total=entries) as show, StopSignal().on_signals() as stop:
        loaded = loader.run(stop, lambda so_far: show(completed=so_far.inserted))
    examples = [" ".join(key) for pk, sk in loaded.live[:2] if (key := EntryKey.parse(pk, sk))]
    document = {**loaded.as_dict(), "forExample": ", ".join(examples), "userForExample": loaded.example_user}
    answer(document, form)
