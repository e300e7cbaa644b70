"""Holds the size of the code below its limits: `make check`. Exit code 1 names each folder above one.

Code is lines without docstrings, comments, blank lines and imports, so that an explanation costs nothing.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
DECISION = ROOT / "docs" / "decisions" / "0012-size.md"


class Size(NamedTuple):
    modules: int
    code: int  # lines


# The most that a folder may have. A sentence in decision 0012 raises it, in the form of `_RAISED`.
LIMITS = {
    "fairdraw": Size(50, 6_000),
    "regworkers_core": Size(7, 700),
    "regworkers_core/adapters": Size(44, 6_700),
    "regworkers_core/analytics": Size(12, 1_800),
    "regworkers_core/cli": Size(17, 1_750),
    "regworkers_core/domain": Size(14, 1_700),
    "regworkers_core/drains": Size(5, 900),
    "regworkers_core/eligibility": Size(18, 2_600),
    "regworkers_core/engine": Size(13, 2_000),
    "regworkers_core/infrastructure": Size(15, 2_800),
    "regworkers_core/observability": Size(4, 400),
    "regworkers_core/operations": Size(66, 9_600),
    "regworkers_core/replication": Size(30, 4_700),
    "regworkers_core/reporting": Size(2, 200),
    "regworkers_core/selection": Size(52, 7_500),
    "regworkers_core/settings": Size(5, 900),
    "regworkers_dagster": Size(30, 4_350),
    "regworkers_local": Size(13, 1_800),
}
# What the packages are to have together, whatever their folders may.
AIMS = {"regworkers_*": Size(360, 47_000), "fairdraw": Size(50, 6_000)}
# All lines of tests, and what they are to be.
TESTS_LIMIT, TESTS_AIM = 117_800, 90_000
# - `regworkers_core/engine`: 18 modules and 2,200 lines of code, because ...
_RAISED = re.compile(r"^- `([\w/]+)`: ([\d,]+) modules and ([\d,]+) lines of code, because \w+", re.MULTILINE)

_UNCOUNTED = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
)
_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_lines(text: str) -> int:
    """How many lines of a module hold code."""
    left_out = set[int]()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            left_out.update(_lines(node))
        elif isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            left_out.update(_lines(node.body[0]))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    counted = (range(each.start[0], each.end[0] + 1) for each in tokens if each.type not in _UNCOUNTED)
    return len(set(chain.from_iterable(counted)) - left_out)


def _lines(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def sizes() -> dict[str, Size]:
    """The size of each folder: of `regworkers_core` those below it and its own modules, of other packages the whole."""
    found: dict[str, Size] = {}
    for package in sorted({name.partition("/")[0] for name in LIMITS}):
        for path in sorted((ROOT / package).rglob("*.py")):
            below = path.relative_to(ROOT).parts
            if "tests" in below or "build" in below:
                continue
            name = "/".join(below[:2]) if package == "regworkers_core" and len(below) > 2 else package
            before = found.get(name, Size(0, 0))
            found[name] = Size(before.modules + 1, before.code + code_lines(path.read_text(encoding="utf-8")))
    return found


def limits() -> dict[str, Size]:
    """The limit of each folder: a sentence of the decision counts before the number here."""
    raised = {
        name: Size(*(int(each.replace(",", "")) for each in numbers))
        for name, *numbers in _RAISED.findall(DECISION.read_text(encoding="utf-8"))
    }
    return LIMITS | raised


def lines_of_tests() -> int:
    """All lines of tests, `fairdraw`'s included."""
    folders = [ROOT / "tests", *(ROOT / "fairdraw").glob("**/tests")]
    return sum(
        len(path.read_text(encoding="utf-8").splitlines())
        for folder in folders
        for path in folder.rglob("*.py")
    )


def findings() -> Iterator[str]:
    """What is above its limit, as sentences."""
    allowed = limits()
    for name, size in sizes().items():
        if name not in allowed:
            yield f"{name} has no limit"
            continue
        for unit, found, most in zip(("modules", "lines of code"), size, allowed[name], strict=True):
            if found > most:
                yield f"{name} has {found:,} {unit}, and its limit is {most:,}"
    if (found := lines_of_tests()) > TESTS_LIMIT:
        yield f"tests have {found:,} lines, and their limit is {TESTS_LIMIT:,}"


def size_table() -> str:
    """Each folder with its limit in Markdown, and the sums with what they are to be."""
    lines = [
        "| folder | modules | at most | lines of code | at most |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    found, allowed = sizes(), limits()
    sums: dict[str, list[Size]] = {}
    for name, size in found.items():
        lines.append(_row(f"`{name}`", size, allowed[name]))
        sums.setdefault("regworkers_*" if name.startswith("regworkers") else name, []).append(size)
    for name, aim in AIMS.items():
        whole = Size(*(sum(each) for each in zip(*sums.get(name, [Size(0, 0)]), strict=True)))
        lines.append(_row(f"**{name}**, the aim", whole, aim))
    lines.append(f"| tests, all lines | | | {lines_of_tests():,} | {TESTS_LIMIT:,}; the aim: {TESTS_AIM:,} |")
    return "\n".join(lines) + "\n"


def _row(name: str, size: Size, most: Size) -> str:
    return f"| {name} | {size.modules:,} | {most.modules:,} | {size.code:,} | {most.code:,} |"


if __name__ == "__main__":
    found = list(findings())
    for each in found:
        sys.stdout.write(f"{each}: delete what is not needed, or write into {DECISION.name} why it is more\n")
    sys.exit(1 if found else 0)
