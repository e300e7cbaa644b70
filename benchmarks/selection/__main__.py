"""`python -m benchmarks.selection`: run the parts and print the figures."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import signal
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import structlog

from benchmarks.selection import assigning, drawing

PARTS = (*drawing.PARTS, *assigning.PARTS)
README = Path(__file__).resolve().parents[1] / "README.md"
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
    # So that scratch files go on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    document: dict[str, Any] = {"conditions": _conditions()}
    text = [
        "{at}, {cores} cores, Python {python}, load {loadBefore} before the start.".format(
            **document["conditions"]
        )
    ]
    if set(options.only) & set(drawing.PARTS):
        document["drawing"] = drawing.measure(options.entries, options.only, _say)
        text += drawing.markdown(document["drawing"])
    if set(options.only) & set(assigning.PARTS):
        document["assigning"] = assigning.measure(options.winners, _say)
        text += assigning.markdown(document["assigning"])
    joined = "\n\n".join(text)
    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() if options.format == "json" else joined)
    if options.write:
        _write(joined)


def _conditions() -> dict[str, Any]:
    """When and on what."""
    return {
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        # Of other programs: what the machine did in the minute before.
        "loadBefore": round(os.getloadavg()[0], 2),
    }


def _write(text: str) -> None:
    """Put the figures between the markers of the README."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
