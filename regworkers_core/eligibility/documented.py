"""The table of rules in docs/eligibility.md, made from the code; a test compares the two."""

from __future__ import annotations

import sys

from regworkers_core.eligibility.rule import all_rules


def rules_table() -> str:
    """In Markdown, as docs/eligibility.md shows it: `python -m regworkers_core.eligibility.documented` prints it."""
    lines = ["| | code | fails when | needs | says to the fan |", "| ---: | --- | --- | --- | --- |"]
    lines += [
        f"| {number} | `{rule.code}` | {rule.fails_when} | {', '.join(rule.needs) or '–'} | {rule.message} |"
        for number, rule in enumerate(all_rules(), 1)
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(rules_table())
