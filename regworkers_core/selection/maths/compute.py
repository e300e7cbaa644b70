"""One phase from its inputs: rank and allocate, with a scratch folder for what lies between."""

from __future__ import annotations

from pathlib import Path

from regworkers_core.selection.maths.allocate import allocate
from regworkers_core.selection.maths.engine import Engine
from regworkers_core.selection.maths.rank import rank
from regworkers_core.selection.maths.summary import Summary

RANKED = "ranked.parquet"


def compute(folder: Path, previous: Path | None, out: Path, *, engine: Engine) -> Summary:
    """`rank` and `allocate`: result.txt, cutoffs.json, summary.json and outcomes.parquet into `out`.

    DrawError names the artefact at fault.
    """
    with engine.folder() as scratch:
        rank(folder, scratch / RANKED, engine=engine)
        return allocate(folder, previous, scratch / RANKED, out, engine=engine)
