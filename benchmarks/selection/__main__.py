"""`python -m benchmarks.selection`: run the parts and print the figures."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from typing import Any

import orjson
import structlog

from benchmarks.readme import conditions, described, say, write
from benchmarks.selection import assigning, drawing

PARTS = (*drawing.PARTS, *assigning.PARTS)
BEGIN, END = "<!-- figures of selection: begin -->", "<!-- figures of selection: end -->"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.selection", description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000_000, help="entries of the draw")
    parser.add_argument("--winners", type=int, default=100_000, help="winners of the assignment")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--write", action="store_true", help="update the figures in benchmarks/README.md")
    options = parser.parse_args()
    # A drain reports at its end; here only the figures are of interest.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    # So that scratch files are always deleted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    document: dict[str, Any] = {"conditions": conditions()}
    text = [described(document["conditions"])]
    if set(options.only) & set(drawing.PARTS):
        document["drawing"] = drawing.measure(options.entries, options.only, say)
        text += drawing.markdown(document["drawing"])
    if set(options.only) & set(assigning.PARTS):
        document["assigning"] = assigning.measure(options.winners, say)
        text += assigning.markdown(document["assigning"])
    joined = "\n\n".join(text)
    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() if options.format == "json" else joined)
    if options.write:
        write(joined, BEGIN, END)


if __name__ == "__main__":
    main()
