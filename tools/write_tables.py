"""Writes tables of the code between their marks in the docs: `make docs`. Tests compare the two.

With `seeds` it writes what simulated days show by seed, too, which takes some minutes.
"""

from __future__ import annotations

import sys

from benchmarks.page import ratios_table, rehearsal_table
from regworkers_core.eligibility.rules import RULES
from regworkers_core.operations.alerts.table import TABLE
from regworkers_core.settings import PROJECT_ROOT
from tests.faults.matrix_table import matrix_table
from tools.simulated_days import pages_table, seeds_table


def rules_table() -> str:
    """The rules of eligibility in Markdown."""
    lines = ["| | code | fails when | needs | says to the fan |", "| ---: | --- | --- | --- | --- |"]
    lines += [
        f"| {number} | `{rule.code}` | {rule.fails_when} | {', '.join(rule.needs) or '–'} | {rule.message} |"
        for number, rule in enumerate(RULES, 1)
    ]
    return "\n".join(lines) + "\n"


def conditions_table() -> str:
    """The conditions of alerts in Markdown, one row for each."""
    columns = ("condition", "fires when", "severity", "key after `<condition>:`", "what to do")
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    lines += [
        f"| `{each.name}` | {each.fires} | {each.severity} | {each.key} | [{each.runbook.removesuffix('.md')}]"
        f"(runbooks/{each.runbook}) |"
        for each in TABLE
    ]
    return "\n".join(lines) + "\n"


# By the page below docs/ and the name in the marks around the table.
TABLES = {
    ("eligibility.md", "rules"): rules_table,
    ("alerts.md", "conditions"): conditions_table,
    ("reliability.md", "blindness matrix"): matrix_table,
    ("../benchmarks/README.md", "ratios"): ratios_table,
    ("../benchmarks/README.md", "rehearsal"): rehearsal_table,
}
# Takes as long as a simulation.
SLOW_TABLES = {("alerts.md", "pages"): pages_table}
BY_SEED = {("reliability.md", "seeds"): seeds_table}


def parts(page: str, name: str) -> tuple[str, str, str]:
    """The text of a page up to its table, the table, and the rest. Raises ValueError without its marks."""
    text = (PROJECT_ROOT / "docs" / page).read_text(encoding="utf-8")
    begin, end = (f"<!-- {name}: {mark} -->" for mark in ("begin", "end"))
    at, to = text.index(begin) + len(begin) + 1, text.index(end)
    return text[:at], text[at:to], text[to:]


if __name__ == "__main__":
    chosen = TABLES | SLOW_TABLES | (BY_SEED if sys.argv[1:] == ["seeds"] else {})
    for (page, name), table in chosen.items():
        before, _, after = parts(page, name)
        (PROJECT_ROOT / "docs" / page).write_text(before + table() + after, encoding="utf-8")
