"""`python -m benchmarks.replication`: run the parts on a new embedded stack and print the figures."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import Any

import orjson

from benchmarks.readme import conditions, say, write
from benchmarks.replication import lag, memory, report, throughput
from benchmarks.stacks import stack_of
from regworkers_core.observability.logs import configure_logging

PARTS = ("throughput", "memory", "lag")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.replication", description=__doc__)
    parser.add_argument("--entries", type=int, default=50_000, help="entries of the throughput part")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--write", action="store_true", help="update the figures in benchmarks/README.md")
    options = parser.parse_args()
    configure_logging("WARNING")
    # So that the stack is always taken down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ.pop("CONFIG_ENV", None)
    document: dict[str, Any] = {"conditions": conditions()}
    if "throughput" in options.only:
        with stack_of("throughput") as stack:
            found = throughput.measure(stack.state, options.entries, say)
        document["throughput"] = report.throughput_json(found)
    if "lag" in options.only:
        with stack_of("lag") as stack:
            document["lag"] = report.lag_json(lag.measure(stack, say))
    if "memory" in options.only:
        document["memory"] = report.memory_json(memory.measure(say))
    text = report.markdown(document)
    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() if options.format == "json" else text)
    if options.write:
        write(text, report.BEGIN, report.END)


if __name__ == "__main__":
    main()
