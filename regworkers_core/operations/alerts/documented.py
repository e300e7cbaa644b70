"""The table of conditions in docs/alerts.md, made from the code; a test compares the two."""

from __future__ import annotations

import sys

from regworkers_core.operations.alerts.table import TABLE


def conditions_table() -> str:
    """In Markdown: `python -m regworkers_core.operations.alerts.documented` prints it."""
    columns = ("condition", "fires when", "severity", "key after `<condition>:`", "what to do")
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    lines += [
        f"| `{each.name}` | {each.fires} | {each.severity} | {each.key} | [{each.runbook.removesuffix('.md')}]"
        f"(runbooks/{each.runbook}) |"
        for each in TABLE
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(conditions_table())
