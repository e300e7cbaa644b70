"""The draw, the Merkle root and receipts, at two sizes and with two kinds of pool; and one large draw."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import ratio, spread
from benchmarks.selection.contestant import run
from benchmarks.selection.data import Shape

# Bare and product in turn, so that other load affects both.
_ROUNDS = 3
# Ten times the entries; what a draw does beside sorting is linear, and sorting nearly so.
_GROWTH = 10

Say = Callable[[str], None]
Figures = dict[str, Any]


def measure(entries: int, say: Say) -> Figures:
    """By pool, `<entries>-plain` or `<entries>-mixed`. Scratch files take some 500 bytes an entry."""
    small, plain, mixed = Shape(max(entries // _GROWTH, 1)), Shape(entries), Shape(entries, mixed=True)
    pools = {shape.folder_name: _pool(shape, say, _ROUNDS) for shape in (small, plain, mixed)}
    plain_pool, mixed_pool = pools[plain.folder_name], pools[mixed.folder_name]
    return {
        "pools": pools,
        "plainOfBare": plain_pool["ofBare"],
        "mixedOfBare": mixed_pool["ofBare"],
        "peakMib": max(each["draw"]["peakMib"] for each in pools.values()),
        "receiptP95": max(each["receipts"]["p95"] for each in (plain_pool, mixed_pool)),
    }


def measure_large(entries: int, say: Say) -> Figures:
    """Every step of one mixed draw, once: its memory is of interest."""
    steps = _pool(Shape(entries, mixed=True), say)
    peak = max(steps[name]["peakMib"] for name in ("leaves", "merkle", "draw"))
    return {"entries": entries, "steps": steps, "peakMib": peak}


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
        if not rounds:
            return found | {"draw": _together([one("draw")])}
        pairs = [(one("bare"), one("draw")) for _ in range(rounds)]
        bare, draw = zip(*pairs, strict=True)
        found |= {"bare": _together(bare), "draw": _together(draw)}
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
