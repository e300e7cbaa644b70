"""`python -m benchmarks SUITE[=SIZE]...`: measure, and print the figures as JSON. `--append` records them and writes
tables and plots of benchmarks/README.md. Without a suite, all are measured.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from benchmarks import idle, imports
from benchmarks.analytics import memory as export_memory
from benchmarks.analytics import signature
from benchmarks.analytics import throughput as export
from benchmarks.eligibility import bulk, function, invites, rates, warm
from benchmarks.figures import append, newest, stack_of
from benchmarks.page import write_tables
from benchmarks.plots import write_plots
from benchmarks.readme import conditions, say
from benchmarks.replication import lag, memory, shards, throughput, verifying
from benchmarks.selection import assigning, drawing, in_the_list, passing_on, phone, publishing, registering
from regworkers_core.observability.logs import configure_logging
from tests.support.environment import leave_instances

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Suite:
    """`minutes` are how long it takes with this size."""

    about: str
    minutes: int
    size: int
    unit: str
    measure: Callable[[int], Figures]


def _on_a_stack(measure: Callable[..., Figures]) -> Callable[[int], Figures]:
    def measured(size: int) -> Figures:
        with stack_of("suite") as stack:
            return measure(stack.state, size, say)

    return measured


def _export_memory(_: int) -> Figures:
    with stack_of("suite") as stack:
        return export_memory.measure(stack, say)


def _saying(measure: Callable[..., Figures]) -> Callable[[int], Figures]:
    return lambda size: measure(size, say)


SUITES: Mapping[str, Suite] = {
    "throughput": Suite(
        "replication beside bare clients and legacy handlers",
        6,
        50_000,
        "entries",
        _on_a_stack(throughput.measure),
    ),
    "memory": Suite("memory of enqueue and save", 2, 0, "", lambda _: memory.measure(say)),
    "shards": Suite("idle shards and the first entry", 4, 15, "seconds", _saying(shards.measure)),
    "steady": Suite("lag under load, with hand-overs", 22, 20, "minutes", _saying(lag.steady)),
    "first": Suite("lag of the first entry after idle times", 90, 60, "idle minutes", _saying(lag.first)),
    "kill": Suite("lag while runs are killed, one a minute", 12, 10, "minutes", _saying(lag.kill)),
    "no-daemon": Suite("lag without the daemon", 14, 10, "minutes", _saying(lag.no_daemon)),
    "no-daemon-kill": Suite("both at once", 14, 10, "minutes", _saying(lag.no_daemon_kill)),
    "idle": Suite("Dagster without work beside bare instances", 8, 5, "minutes", _saying(idle.measure)),
    "imports": Suite("what a run imports", 1, 15, "processes", imports.measure),
    "verifying": Suite("all entries compared", 14, 10_000_000, "entries", _saying(verifying.measure)),
    "export": Suite("the export beside bare clients", 4, 1_000, "messages", _on_a_stack(export.measure)),
    "export-apache-kafka": Suite(
        "the same with Apache Kafka (needs Java and Maven)",
        4,
        1_000,
        "messages",
        _on_a_stack(export.measure_on_apache_kafka),
    ),
    "export-memory": Suite("memory of the export", 2, 0, "", _export_memory),
    "signature": Suite("what signed events cost", 1, 0, "", signature.measure),
    "draw": Suite("a draw beside bare DuckDB", 12, 10_000_000, "entries", _saying(drawing.measure)),
    "large-draw": Suite("one large draw", 4, 20_000_000, "entries", _saying(drawing.measure_large)),
    "proofs": Suite("static proofs of a draw", 2, 1_000_000, "entries", _saying(publishing.measure_proofs)),
    "replay": Suite(
        "a draw again in JavaScript", 1, 1_000_000, "entries", _saying(publishing.measure_replay)
    ),
    "log": Suite(
        "appends to a long public log", 1, 500_000, "leaves", _saying(registering.measure_appending)
    ),
    "registrations": Suite(
        "a tree of registrations beside bare hashing",
        4,
        3_500_000,
        "entries",
        _saying(registering.measure_registrations),
    ),
    "register": Suite(
        "the drain of registrations beside bare writes",
        4,
        20_000,
        "entries",
        _saying(in_the_list.measure),
    ),
    "phone": Suite(
        "a receipt checked on a slow phone (needs Chromium)", 1, 9, "rounds", _saying(phone.measure)
    ),
    "assign": Suite(
        "codes for winners beside bare writes", 4, 100_000, "winners", _saying(assigning.measure)
    ),
    "rounds": Suite("seats that pass on", 25, 100_000, "seats", _saying(passing_on.measure)),
    "check": Suite("CPU of a warm check", 2, 9, "rounds", _on_a_stack(warm.measure)),
    "function": Suite("checkEligibility beside bare calls", 1, 7, "starts", _on_a_stack(function.measure)),
    "rates": Suite("checks a second", 2, 3, "rounds", _on_a_stack(rates.measure)),
    "judging": Suite("all entries of a campaign judged", 7, 1_000_000, "entries", _on_a_stack(bulk.measure)),
    "invites": Suite("an upload beside bare writes", 17, 1_000_000, "rows", _saying(invites.measure)),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(
            f"  {name:<14} {each.about}: {f'{each.size:,} {each.unit}, ' if each.size else ''}{each.minutes} min"
            for name, each in SUITES.items()
        ),
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE[=SIZE]", default=list(SUITES))
    parser.add_argument("--append", action="store_true", help="add the figures to benchmarks/figures.jsonl")
    options = parser.parse_args()
    asked = [named.partition("=") for named in options.suites]
    if unknown := {name for name, _, _ in asked} - SUITES.keys():
        parser.error(f"no such suite: {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    configure_logging("WARNING")
    # So that stacks are always taken down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    leave_instances()
    for name, _, given in asked:
        suite = SUITES[name]
        size = int(given or suite.size)
        say(f"{name}: {suite.about}; about {suite.minutes} minutes")
        record = {"suite": name, "size": size, **conditions(), "figures": suite.measure(size)}
        print(orjson.dumps(record, option=orjson.OPT_INDENT_2).decode(), flush=True)
        if options.append:
            # Each at once, because later ones take long and may fail.
            append(record)
            write_tables()
            write_plots(newest())


if __name__ == "__main__":
    main()
