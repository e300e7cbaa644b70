"""The plots of benchmarks/README.md, from the newest records of `figures.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

matplotlib.use("svg")
PLOTS = Path(__file__).resolve().parent / "plots"


def write_plots(records: Mapping[str, Any]) -> None:
    """The same bytes for the same records."""
    PLOTS.mkdir(exist_ok=True)
    with plt.rc_context({"svg.hashsalt": "regworkers", "svg.fonttype": "none", "font.size": 9}):
        for name, plot in (("lag", _lag), ("entries", _entries), ("shards", _shards)):
            figure = plot(records)
            figure.tight_layout()
            figure.savefig(PLOTS / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
            plt.close(figure)


def _lag(records: Mapping[str, Any]) -> Figure:
    """A panel for each scene under load: median and worst of five seconds, and what happened when."""
    scenes = ("steady", "kill", "no-daemon", "no-daemon-kill")
    figure, panels = plt.subplots(len(scenes), figsize=(8, 8))
    for name, panel in zip(scenes, panels, strict=True):
        panel.set(title=f"{name}: {_when(records.get(name))}", ylabel="lag, s")
        if name not in records:
            continue
        figures = records[name]["figures"]
        at, middle, worst = zip(*figures["series"], strict=True)
        panel.plot(at, worst, color="tab:orange", linewidth=0.8, label="worst of 5 s")
        panel.plot(at, middle, color="tab:blue", linewidth=0.8, label="median of 5 s")
        for second, what in figures["marks"]:
            color = next(color for word, color in _MARKS.items() if word in what)
            panel.axvline(second, color=color, linewidth=0.6)
        panel.set_yscale("log")
        panel.legend(loc="upper right")
    panels[-1].set_xlabel(f"s; lines: {', '.join(f'{word} ({color[4:]})' for word, color in _MARKS.items())}")
    return figure


def _when(record: Mapping[str, Any] | None) -> str:
    return f"{record['commit']}, {record['at']}" if record else "not measured"


# Words of marks, and their colours.
_MARKS = {"new run": "tab:green", "kill ": "tab:red", "daemon": "tab:purple"}


def _entries(records: Mapping[str, Any]) -> Figure:
    """Time and memory of a draw by its entries."""
    figure, panels = plt.subplots(1, 2, figsize=(8, 3))
    pools = dict(records["draw"]["figures"]["pools"])
    if "large-draw" in records:
        large = records["large-draw"]["figures"]
        pools[f"{large['entries']}-mixed"] = large["steps"]
    for kind in ("plain", "mixed"):
        sizes = sorted(int(name.partition("-")[0]) for name in pools if name.endswith(kind))
        draws = [pools[f"{size}-{kind}"]["draw"] for size in sizes]
        seconds = [_middle(each["seconds"]) for each in draws]
        millions = [size / 1e6 for size in sizes]
        panels[0].plot(millions, seconds, marker="o", label=kind)
        panels[1].plot(millions, [each["peakMib"] for each in draws], marker="o", label=kind)
    panels[0].set(xlabel="million entries", ylabel="seconds of a draw", ylim=(0, None))
    panels[1].set(xlabel="million entries", ylabel="MiB at the peak", ylim=(0, None))
    panels[0].legend()
    return figure


def _shards(records: Mapping[str, Any]) -> Figure:
    """What idle shards take, and what they do to the first entry."""
    figure, panels = plt.subplots(1, len(_OF_SHARDS), figsize=(8, 2.6))
    figure.suptitle(_when(records.get("shards")))
    by_shards = records["shards"]["figures"]["byShards"] if "shards" in records else {}
    for panel, (key, name) in zip(panels, _OF_SHARDS.items(), strict=True):
        panel.set(xlabel="shards", ylabel=name, xscale="log")
        panel.plot(
            [int(shards) for shards in by_shards], [_middle(each[key]) for each in by_shards.values()], "o-"
        )
    return figure


_OF_SHARDS = {
    "readsPerSecond": "reads a second",
    "cpuPercent": "CPU, % of a core",
    "firstSeconds": "first entry, s",
}


def _middle(value: Any) -> float:
    """Of a figure with or without its spread."""
    return float(value["median"] if isinstance(value, Mapping) else value)
