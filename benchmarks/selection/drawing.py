"""The draw and the steps around it as it grows, and receipts; and one large draw."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import ratio, spread
from benchmarks.selection.contestant import run
from benchmarks.selection.data import Shape

# Bare and product in turn, so that other load affects both. Ratios of single rounds differ by a sixth.
_ROUNDS = 7
# Of the entries, for the growth.
_SHARES = (0.1, 0.25, 0.5, 1)

Say = Callable[[str], None]
Figures = dict[str, Any]


def measure(entries: int, say: Say) -> Figures:
    """By pool, `<entries>-plain` or `<entries>-mixed`. Scratch files take some 500 bytes an entry."""
    sizes = [max(int(entries * share), 1) for share in _SHARES]
    shapes = [Shape(sizes[0]), Shape(entries), *(Shape(size, mixed=True) for size in sizes)]
    pools = {shape.folder_name: _pool(shape, say, _ROUNDS) for shape in shapes}
    plain, mixed = pools[shapes[1].folder_name], pools[shapes[-1].folder_name]
    return {
        "pools": pools,
        "plainOfBare": plain["ofBare"],
        "mixedOfBare": mixed["ofBare"],
        "peakMib": max(each["draw"]["peakMib"] for each in pools.values()),
        "receiptP95": max(each["receipts"]["p95"] for each in (plain, mixed)),
    }


def measure_large(entries: int, say: Say) -> Figures:
    """Every step of one mixed draw, once: its memory is of interest."""
    steps = _pool(Shape(entries, mixed=True), say)
    return {"entries": entries, "steps": steps, "peakMib": max(each["peakMib"] for each in steps.values())}


def _pool(shape: Shape, say: Say, rounds: int = 0) -> Figures:
    """The steps of a draw; with rounds beside bare DuckDB, and with receipts."""
    found: Figures = {}
    with tempfile.TemporaryDirectory(prefix="regworkers-bench-") as scratch:
        folder = Path(scratch) / shape.folder_name

        def one(name: str) -> Figures:
            figures = run(name, folder)
            say(f"{folder.name} {name}: {figures['seconds']:.1f} s, {figures['peakMib']:.0f} MiB")
            return figures

        one("pool")
        for name in ("leaves", "merkle"):
            found[name] = _together([one(name)])
        pairs = [(one("bare"), one("draw")) for _ in range(rounds)]
        draw = [pair[1] for pair in pairs] or [one("draw")]
        found |= {"draw": _together(draw)} | {name: _together([one(name)]) for name in ("root", "gate")}
        if not rounds:
            return found
        bare = [pair[0] for pair in pairs]
        found["bare"] = _together(bare)
        found["ofBare"] = ratio((each["seconds"] for each in draw), (each["seconds"] for each in bare))
        times = one("receipts")["milliseconds"]
        found["receipts"] = {
            "p50": round(median(times), 1),
            "p95": round(times[int(len(times) * 0.95)], 1),
            "max": round(times[-1], 1),
        }
    return found


def _together(rounds: Sequence[Mapping[str, float]]) -> Figures:
    """The peak is the highest."""
    return {
        "seconds": spread(each["seconds"] for each in rounds),
        "cpuSeconds": spread(each["cpuSeconds"] for each in rounds),
        "peakMib": round(max(each["peakMib"] for each in rounds)),
    }
