"""The figures as one JSON document, and as the tables of `benchmarks/README.md`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.replication import counting
from benchmarks.replication.lag import Lag
from benchmarks.replication.memory import Peak
from benchmarks.replication.throughput import Measured
from regworkers_core.operations.runbooks.cost import PRICES_AS_OF, PRICES_REGION

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
NAMES = {"floor": "(a) floor", "product": "(b) product", "handlers": "(c) handlers"}
# The aims of the project, as (text, least ratio).
AIM_FLOOR, AIM_HANDLERS, AIM_CALLS, AIM_LAG_SECONDS, AIM_MEMORY = 0.8, 8.0, 0.1, 2.0, 1.15


def throughput_json(found: Mapping[str, Measured]) -> dict[str, Any]:
    """Rates are entries a second, ratios are of medians, CPU is milliseconds for 1,000 entries."""
    floor, product, handlers = (found[name] for name in NAMES)
    dollars = {
        "product": counting.product(product.bill, product.total, product.rate),
        "handlers": counting.handlers(handlers.bill, handlers.total),
    }
    return {
        "contestants": {
            name: {
                "entries": each.total,
                "rounds": len(each.rounds),
                "rate": round(each.rate),
                "enqueueRate": round(each.phase("enqueue")),
                "saveRate": round(each.phase("save")),
                "spread": round(each.spread, 3),
                "cpuMsPerThousand": {
                    process: round(each.cpu_per_thousand(process)) for process in ("client", "aws", "mongo")
                },
                "callsPerMillion": round(counting.calls_per_million(each.bill, each.total)),
            }
            for name, each in found.items()
        },
        "ofFloor": round(product.rate / floor.rate, 2),
        "timesHandlers": round(product.rate / handlers.rate, 1),
        # Steadier than the rates where something else uses the machine.
        "cpuOfFloor": round(product.cpu_of_all / floor.cpu_of_all, 2),
        "handlersCpuTimes": round(handlers.cpu_of_all / product.cpu_of_all, 1),
        "callsOfHandlers": round(
            counting.calls_per_million(product.bill, product.total)
            / counting.calls_per_million(handlers.bill, handlers.total),
            3,
        ),
        "dollarsPerMillion": {
            name: {kind: round(value, 3) for kind, value in kinds.items()}
            | {"sum": round(sum(kinds.values()), 2)}
            for name, kinds in dollars.items()
        },
    }


def memory_json(peaks: Sequence[Peak]) -> list[dict[str, Any]]:
    return [
        {key: round(value, 1) if isinstance(value, float) else value for key, value in asdict(peak).items()}
        for peak in peaks
    ]


def lag_json(lag: Lag) -> dict[str, Any]:
    return asdict(lag)


def markdown(document: Mapping[str, Any]) -> str:
    """All parts that were run."""
    where = document["conditions"]
    parts = [
        f"{where['at']}, {where['cores']} cores, Python {where['python']}, load {where['loadBefore']} before the"
        " start."
    ]
    if "throughput" in document:
        parts += _throughput(document["throughput"])
    if "memory" in document:
        parts += _memory(document["memory"])
    if "lag" in document:
        parts += _lag(document["lag"])
    return "\n\n".join(parts)


def _throughput(found: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            NAMES[name],
            f"{each['entries']:,}",
            f"{each['enqueueRate']:,}",
            f"{each['saveRate']:,}",
            f"**{each['rate']:,}**",
            f"{each['spread']:.0%}",
            *(f"{each['cpuMsPerThousand'][process]:,}" for process in ("client", "aws", "mongo")),
            f"{each['callsPerMillion']:,}",
        )
        for name, each in found["contestants"].items()
    ]
    head = (
        "", "entries", "enqueue/s", "save/s", "both/s", "spread",
        "CPU client", "CPU AWS", "CPU MongoDB", "calls per million",
    )  # fmt: skip
    aims = [
        (
            "product / floor",
            f"{found['ofFloor']:.2f}",
            f"at least {AIM_FLOOR}",
            found["ofFloor"] >= AIM_FLOOR,
        ),
        (
            "product / handlers",
            f"{found['timesHandlers']:.1f}",
            f"at least {AIM_HANDLERS:g}",
            found["timesHandlers"] >= AIM_HANDLERS,
        ),
        (
            "calls / calls of handlers",
            f"{found['callsOfHandlers']:.3f}",
            f"at most {AIM_CALLS}",
            found["callsOfHandlers"] <= AIM_CALLS,
        ),
    ]
    cpu = (
        f"CPU of all processes for an entry, which something else on the machine disturbs less: the product takes"
        f" {found['cpuOfFloor']:.2f} of the floor's, the handlers {found['handlersCpuTimes']:.1f} times the product's."
    )
    dollars = found["dollarsPerMillion"]
    kinds = list(dollars["product"])
    costs = [
        (NAMES[name], *(f"{dollars[name][kind]:.2f}" for kind in kinds)) for name in ("product", "handlers")
    ]
    return [
        "### Throughput",
        _table(head, rows),
        "Rates are medians of the rounds, spread is (slowest - fastest) / median of them; CPU is milliseconds of"
        " each process for 1,000 entries.",
        _table(("ratio", "found", "aim", "met"), [(*row[:3], "yes" if row[3] else "no") for row in aims]),
        cpu,
        f"Dollars for a million entries, list prices of {PRICES_REGION} as of {PRICES_AS_OF}:",
        _table(("", *kinds), costs),
    ]


def _memory(peaks: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        (peak["drain"], f"{peak['entries']:,}", f"{peak['before']:.0f}", f"{peak['peak']:.0f}")
        for peak in peaks
    ]
    ratios = [large["peak"] / small["peak"] for small, large in zip(peaks[::2], peaks[1::2], strict=True)]
    met = "met" if max(ratios) <= AIM_MEMORY else "not met"
    return [
        "### Memory of a drain",
        _table(("drain", "entries", "MiB before", "MiB at the peak"), rows),
        f"Ten times the entries take {max(ratios):.2f} times the memory at most (aim: the same; {met}).",
    ]


def _lag(lag: Mapping[str, Any]) -> list[str]:
    def row(name: str, values: Mapping[str, float | None]) -> tuple[str, ...]:
        return (
            name,
            *("–" if values[key] is None else f"{values[key]:.2f}" for key in ("p50", "p95", "p99", "max")),
        )

    met = "met" if (lag["running"]["p95"] or 0) < AIM_LAG_SECONDS else "not met"
    firsts = ", ".join(f"{seconds:.1f} s" for seconds in lag["first_entry_seconds"])
    return [
        "### Lag through the daemon and the sensors",
        f"{lag['entries']:,} entries at {lag['per_second']:g}/s; seconds from `updatedAt` until the replica shows it:",
        _table(
            ("", "p50", "p95", "p99", "max"),
            [row("all", lag["all"]), row("once drains run", lag["running"])],
        ),
        f"Aim: p95 under {AIM_LAG_SECONDS:g} s once a drain runs; {met}.",
        f"From a first entry on an idle system (no drain runs) to its replica: {firsts}.",
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
