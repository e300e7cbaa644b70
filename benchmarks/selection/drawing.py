"""The draw, the Merkle root and receipts, at two sizes and with two kinds of pool."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.selection.contestant import run
from benchmarks.selection.data import Shape
from benchmarks.tables import table

PARTS = ("draw", "merkle", "receipt")
# Bare and product in turn, so that other load affects both.
_ROUNDS = 3
AIM_OF_BARE, AIM_MIB, AIM_RECEIPT_MS = 1.5, 1024, 50
# Ten times the entries; what a draw does beside sorting is linear, and sorting nearly so.
_GROWTH = 10

_STEPS = ("leaves", "merkle")

Say = Callable[[str], None]


def measure(entries: int, parts: Collection[str], say: Say) -> dict[str, Any]:
    """`{"<entries>-plain"|"<entries>-mixed": {contestant: figures}}`. Scratch files take some 300 bytes an entry."""
    shapes = [Shape(entries)]
    if "draw" in parts:
        shapes = [Shape(max(entries // _GROWTH, 1)), Shape(entries), Shape(entries, mixed=True)]
    found = {}
    with tempfile.TemporaryDirectory(prefix="regworkers-bench-") as scratch:
        for shape in shapes:
            folder = Path(scratch) / shape.folder_name
            found[shape.folder_name] = _measure(folder, parts, say, last=shape.entries == entries)
            shutil.rmtree(folder)
    return found


def _measure(folder: Path, parts: Collection[str], say: Say, *, last: bool) -> dict[str, Any]:
    def one(name: str) -> dict[str, Any]:
        figures = run(name, folder)
        say(f"{folder.name} {name}: {figures['seconds']:.1f} s, {figures['peakMib']:.0f} MiB")
        return figures

    one("pool")
    found: dict[str, Any] = {"leaves": one("leaves"), "merkle": one("merkle")}
    if "draw" in parts:
        rounds = [(one("bare"), one("draw")) for _ in range(_ROUNDS)]
        found["bare"], found["draw"] = (_median(each) for each in zip(*rounds, strict=True))
        found["ofBare"] = median(draw["seconds"] / bare["seconds"] for bare, draw in rounds)
    elif "receipt" in parts:
        one("draw")
    if "receipt" in parts and last:
        times = one("receipts").pop("milliseconds")
        found["receipt"] = {
            "p50": median(times),
            "p95": times[int(len(times) * 0.95)],
            "max": times[-1],
            "count": len(times),
        }
    return found


def _median(rounds: Collection[Mapping[str, float]]) -> dict[str, float]:
    """Times are medians, the peak is the highest."""
    return {
        "seconds": median(each["seconds"] for each in rounds),
        "cpuSeconds": median(each["cpuSeconds"] for each in rounds),
        "peakMib": max(each["peakMib"] for each in rounds),
    }


def markdown(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The tables of the README for what was measured."""
    text = []
    drawn = {name: each for name, each in found.items() if "draw" in each}
    if drawn:
        text += _draw_tables(drawn)
    rows = [
        (_name(name), *(f"{each[step][figure]:.1f}" for figure in ("seconds", "peakMib") for step in _STEPS))
        for name, each in found.items()
    ]
    text += [
        "### Leaves and Merkle root",
        table(("pool", "leaves, s", "root, s", "leaves, MiB", "root, MiB"), rows),
    ]
    receipts = {name: each["receipt"] for name, each in found.items() if "receipt" in each}
    if receipts:
        text += ["### A receipt", _receipt_table(receipts)]
    return text


def _draw_tables(drawn: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [
        (
            _name(name),
            f"{each['bare']['seconds']:.1f}",
            f"**{each['draw']['seconds']:.1f}**",
            f"{each['ofBare']:.2f}",
            f"{each['bare']['cpuSeconds']:.1f}",
            f"{each['draw']['cpuSeconds']:.1f}",
            f"{each['bare']['peakMib']:.0f}",
            f"**{each['draw']['peakMib']:.0f}**",
        )
        for name, each in drawn.items()
    ]
    small, large, _ = drawn.values()
    peak = max(each["draw"]["peakMib"] for each in drawn.values())
    growth = large["draw"]["seconds"] / small["draw"]["seconds"]
    aims = [
        _aim("draw / bare DuckDB", large["ofBare"], AIM_OF_BARE, "{:.2f}"),
        _aim("peak memory of the draw, MiB", peak, AIM_MIB, "{:.0f}"),
    ]
    return [
        "### The draw",
        table(
            ("pool", "bare, s", "draw, s", "draw / bare", "CPU bare", "CPU draw", "MiB bare", "MiB draw"),
            rows,
        ),
        table(("", "found", "aim", "met"), aims),
        f"Ten times the entries take {growth:.1f} times as long.",
    ]


def _receipt_table(receipts: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        (_name(name), f"{each['p50']:.1f}", f"{each['p95']:.1f}", f"{each['max']:.1f}",
         f"{AIM_RECEIPT_MS}", "yes" if each["p95"] < AIM_RECEIPT_MS else "no")
        for name, each in receipts.items()
    ]  # fmt: skip
    return table(("pool", "p50, ms", "p95, ms", "max, ms", "aim: p95 under", "met"), rows)


def _aim(name: str, value: float, most: float, form: str) -> tuple[str, ...]:
    return name, form.format(value), f"at most {most:g}", "yes" if value <= most else "no"


def _name(shape: str) -> str:
    entries, _, kind = shape.partition("-")
    return f"{int(entries):,} {kind}"
