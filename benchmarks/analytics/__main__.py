"""`python -m benchmarks.analytics`: run the parts and print the figures."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson

from benchmarks.analytics import memory, throughput
from benchmarks.analytics.memory import Peak
from benchmarks.analytics.throughput import PROCESSES, Measured
from benchmarks.readme import conditions, described, say, write
from benchmarks.stacks import stack_of
from benchmarks.tables import table
from regworkers_core.observability.logs import configure_logging

PARTS = ("throughput", "memory")
BEGIN, END = "<!-- figures of analytics: begin -->", "<!-- figures of analytics: end -->"
NAMES = {
    "sqs": "bare SQS: receive and delete",
    "kafka": "bare producer",
    "both": "both bare ones at once",
    "drain": "drain `publish`: both, with validation",
    "old": "legacy worker: produce and flush, record by record",
}
AIM_OF_SLOWER, AIM_MEMORY = 0.85, 1.15


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.analytics", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000, help="messages of a round, 100 events each")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--write", action="store_true", help="update the figures in benchmarks/README.md")
    options = parser.parse_args()
    configure_logging("WARNING")
    # So that the stack is always taken down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ.pop("CONFIG_ENV", None)
    document: dict[str, Any] = {"conditions": conditions()}
    text = [described(document["conditions"])]
    with stack_of("analytics") as stack:
        if "throughput" in options.only:
            found = throughput.measure(stack.state, options.messages, say)
            document["throughput"] = _json(found)
            text += _throughput(found, document["throughput"])
        if "memory" in options.only:
            peaks = memory.measure(stack, say)
            document["memory"] = [asdict(peak) for peak in peaks]
            text += _memory(peaks)
    joined = "\n\n".join(text)
    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() if options.format == "json" else joined)
    if options.write:
        write(joined, BEGIN, END)


def _json(found: Mapping[str, Measured]) -> dict[str, Any]:
    """Rates are events a second, CPU is microseconds for an event."""
    slower = min(found["sqs"].rate, found["kafka"].rate)
    return {
        "contestants": {
            name: {
                "events": each.events,
                "rounds": len(each.seconds),
                "rate": round(each.rate),
                "spread": round(each.spread, 3),
                "cpuMicros": {process: round(each.cpu_micros(process), 1) for process in PROCESSES},
            }
            for name, each in found.items()
        },
        "ofSlower": round(found["drain"].rate / slower, 2),
        "bothOfSlower": round(found["both"].rate / slower, 2),
        "timesOld": round(found["drain"].rate / found["old"].rate, 1),
    }


def _throughput(found: Mapping[str, Measured], document: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            NAMES[name],
            f"{each.events:,}",
            f"**{each.rate:,.0f}**",
            f"{each.spread:.0%}",
            *(f"{each.cpu_micros(process):.0f}" for process in PROCESSES),
        ]
        for name, each in found.items()
    ]
    head = ["", "events", "events/s", "spread", "CPU client", "CPU AWS", "CPU Kafka"]
    met = "met" if document["ofSlower"] >= AIM_OF_SLOWER else "missed"
    return [
        table(head, rows),
        "Rates are medians of the rounds, spread is (slowest - fastest) / median of them; CPU is microseconds of each "
        "process for an event.",
        f"Drain to the slower of the two bare ones: {document['ofSlower']} (aim: at least {AIM_OF_SLOWER}; {met}); "
        f"the two bare ones themselves, at once: {document['bothOfSlower']}. "
        f"Drain to the legacy worker: {document['timesOld']}.",
    ]


def _memory(peaks: Sequence[Peak]) -> list[str]:
    rows = [[f"{each.events:,}", f"{each.before:.0f}", f"{each.peak:.0f}"] for each in peaks]
    times = peaks[-1].peak / peaks[0].peak
    return [
        table(["events on the queue", "MiB before", "MiB at the peak"], rows),
        f"A hundred times the events take {times:.2f} times the memory (aim: the same; "
        f"{'met' if times <= AIM_MEMORY else 'missed'}).",
    ]


if __name__ == "__main__":
    main()
