"""The public page of a draw: its static proofs, lookups in them, and the draw replayed in JavaScript."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.figures import spread
from benchmarks.selection.contestant import run
from benchmarks.selection.data import Shape

_ROUNDS = 3
# Of the entries, for the growth.
_SHARES = (0.1, 1)

Say = Callable[[str], None]
Figures = dict[str, Any]


@contextmanager
def _drawn(entries: int, say: Say) -> Iterator[Path]:
    """The folder of a mixed draw."""
    with tempfile.TemporaryDirectory(prefix="regworkers-bench-") as scratch:
        folder = Path(scratch) / Shape(entries, mixed=True).folder_name
        for name in ("pool", "leaves", "merkle", "draw"):
            run(name, folder)
        say(f"{folder.name}: drawn")
        yield folder


def measure_proofs(entries: int, say: Say) -> Figures:
    """By entries of a mixed draw: seconds, memory, bytes and tiles, and what a lookup takes. The bytes of a lookup are
    compressed, and those of the largest of 251 refs, 51 of them without a leaf.
    """
    sizes = {str(size): _sizes(size, say) for size in (max(int(entries * share), 1) for share in _SHARES)}
    largest = sizes[str(entries)]
    per_million = largest["seconds"]["median"] * 1_000_000 / entries
    return {"sizes": sizes, "secondsAMillion": round(per_million, 1), **largest["lookups"]} | {
        name: largest[name] for name in ("peakMib", "bytes", "tiles", "records")
    }


def _sizes(entries: int, say: Say) -> Figures:
    with _drawn(entries, say) as folder:
        made = run("proofs", folder)
        lookups = run("lookups", folder)
        say(
            f"{folder.name} proofs: {made['seconds']:.1f} s, {made['peakMib']:.0f} MiB, {made['bytes']:,} bytes"
        )
        found = {name: made[name] for name in ("bytes", "tiles", "records")}
        return found | {
            "seconds": spread([made["seconds"]]),
            "cpuSeconds": spread([made["cpuSeconds"]]),
            "peakMib": round(made["peakMib"]),
            "lookups": {name: lookups[name] for name in ("requests", "mostBytes", "slowestMs")},
        }


def measure_replay(entries: int, say: Say) -> Figures:
    """The whole draw again in Node, as a browser does it once the files are there."""
    with _drawn(entries, say) as folder:
        rounds = [run("replay", folder) for _ in range(_ROUNDS)]
    if not all(each["passed"] for each in rounds):
        raise RuntimeError("the replay found a difference")
    say(f"{entries:,} replayed: {[round(each['seconds'], 1) for each in rounds]} s")
    return {name: spread(each[name] for each in rounds) for name in ("seconds", "cpuSeconds", "peakMib")}
