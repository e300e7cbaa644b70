"""`python -m benchmarks.eligibility`: run the parts on new embedded stacks and print the figures."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from typing import Any

import orjson
import structlog

from benchmarks.eligibility import bulk, function, invites, rates, warm
from benchmarks.readme import conditions, described, say, write
from benchmarks.stacks import stack_of

PARTS = ("warm", "function", "rates", "bulk", "invites")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.eligibility", description=__doc__)
    parser.add_argument(
        "--entries", type=int, default=1_000_000, help="entries of the bulk judgement, made up"
    )
    parser.add_argument("--stored", type=int, default=50_000, help="those that a MongoDB holds")
    parser.add_argument("--rows", type=int, default=1_000_000, help="invites of an upload")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument(
        "--write", action="store_true", help="update the figures in benchmarks/README.md, part by part"
    )
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    # So that the stack is always taken down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ["REGWORKERS_INSTANCE"] = "none"
    os.environ.pop("CONFIG_ENV", None)
    document: dict[str, Any] = {}
    for part in PARTS:
        if part not in options.only:
            continue
        where = conditions()
        found, text = _measured(part, options)
        document[part] = {"conditions": where, **found}
        joined = "\n\n".join([text[0], described(where), *text[1:]])
        if options.format == "text":
            print(joined, end="\n\n", flush=True)
        if options.write:
            # Each at once, because later ones take long and may fail.
            write(joined, *(f"<!-- figures of eligibility, {part}: {end} -->" for end in ("begin", "end")))
    if options.format == "json":
        print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def _measured(part: str, options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """The figures, and the same as text with a title."""
    if part == "invites":
        found = invites.measure(options.rows, say)
        return found, ["### An upload of invites", *invites.markdown(found)]
    with stack_of(part) as stack:
        if part == "warm":
            found = warm.measure(stack.state, say)
            return found, warm.markdown(found)
        if part == "function":
            found = function.measure(stack.state, say)
            return found, function.markdown(found)
        if part == "rates":
            found = rates.measure(stack.state, say)
            return found, rates.markdown(found)
        found = bulk.measure(stack.state, options.entries, options.stored, say)
        return found, bulk.markdown(found)


if __name__ == "__main__":
    main()
