"""`python -m benchmarks.eligibility`: run the parts on embedded stacks of their own and print the figures."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import orjson
import structlog

from benchmarks.eligibility import bulk, invites, rates, warm
from benchmarks.readme import conditions, say, told, write
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.stack import Stack
from regworkers_local.state import StackState

PARTS = ("warm", "rates", "bulk", "invites")
BEGIN, END = "<!-- figures of eligibility: begin -->", "<!-- figures of eligibility: end -->"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.eligibility", description=__doc__)
    parser.add_argument(
        "--entries", type=int, default=1_000_000, help="entries of the bulk judgement, made up"
    )
    parser.add_argument("--stored", type=int, default=50_000, help="those that a MongoDB holds")
    parser.add_argument("--rows", type=int, default=100_000, help="invites of an upload")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--write", action="store_true", help="update the figures in benchmarks/README.md")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    # So that the stack is taken down on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ["REGWORKERS_INSTANCE"] = "none"
    os.environ.pop("CONFIG_ENV", None)
    document: dict[str, Any] = {"conditions": conditions()}
    text = [told(document["conditions"])]
    if set(options.only) - {"invites"}:
        stack = Stack(Path(PROJECT_ROOT), f"bench-eligibility-{os.getpid()}")
        try:
            text += _on_a_stack(stack.up(), options, document)
        finally:
            stack.reset()
    if "invites" in options.only:
        document["invites"] = invites.measure(options.rows, say)
        text += ["### An upload of invites", *invites.markdown(document["invites"])]
    joined = "\n\n".join(text)
    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() if options.format == "json" else joined)
    if options.write:
        write(joined, BEGIN, END)


def _on_a_stack(state: StackState, options: argparse.Namespace, document: dict[str, Any]) -> list[str]:
    """Measure into `document`; the text of what was measured."""
    text: list[str] = []
    if "warm" in options.only:
        document["warm"] = warm.measure(state, say)
        text += warm.markdown(document["warm"])
    if "rates" in options.only:
        document["rates"] = rates.measure(state, say)
        text += rates.markdown(document["rates"])
    if "bulk" in options.only:
        document["bulk"] = bulk.measure(state, options.entries, options.stored, say)
        text += bulk.markdown(document["bulk"])
    return text


if __name__ == "__main__":
    main()
