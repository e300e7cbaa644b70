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


# A limit, as the decision has it: - `regworkers_core/engine`: 18 modules and 2,200 lines of code, because ...
_LIMIT = re.compile(r"^- `([\w/]+)`: ([\d,]+) modules and ([\d,]+) lines of code\b", re.MULTILINE)
_LIMIT_OF_TESTS = re.compile(r"^- `tests`: ([\d,]+) lines\b", re.MULTILINE)

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
    for package in sorted({"fairdraw", *(path.name for path in ROOT.glob("regworkers_*"))}):
        for path in sorted((ROOT / package).rglob("*.py")):
            below = path.relative_to(ROOT).parts
            if "tests" in below or "build" in below:
                continue
            name = "/".join(below[:2]) if package == "regworkers_core" and len(below) > 2 else package
            before = found.get(name, Size(0, 0))
            found[name] = Size(before.modules + 1, before.code + code_lines(path.read_text(encoding="utf-8")))
    return found


def limits() -> tuple[dict[str, Size], int]:
    """The limit of each folder, and that of the lines of all tests."""
    text = DECISION.read_text(encoding="utf-8")
    (tests,) = _LIMIT_OF_TESTS.findall(text)
    return {
        name: Size(_number(modules), _number(code)) for name, modules, code in _LIMIT.findall(text)
    }, _number(tests)


def _number(text: str) -> int:
    return int(text.replace(",", ""))


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
    allowed, of_tests = limits()
    for name, size in sizes().items():
        if name not in allowed:
            yield f"{name} has no limit"
            continue
        for unit, found, most in zip(("modules", "lines of code"), size, allowed[name], strict=True):
            if found > most:
                yield f"{name} has {found:,} {unit}, and its limit is {most:,}"
    if (found := lines_of_tests()) > of_tests:
        yield f"tests have {found:,} lines, and their limit is {of_tests:,}"


if __name__ == "__main__":
    found = list(findings())
    for each in found:
        sys.stdout.write(f"{each}: delete what is not needed, or write into {DECISION.name} why it is more\n")
    sys.exit(1 if found else 0)
