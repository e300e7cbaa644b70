"""Private names of Dagster's packages are imported in one module alone, and each of them is needed and explained."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from regworkers_core.settings import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "regworkers_dagster"
MODULE = FOLDER / "internals.py"
SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted(FOLDER.rglob("*.py"))}
_PRIVATE = re.compile(r"dagster_shared\b|dagster\w*\._")


def private(path: Path) -> Iterator[ast.ImportFrom]:
    """The imports of a module from where Dagster exports nothing."""
    for node in ast.walk(ast.parse(SOURCES[path])):
        if isinstance(node, ast.Import):
            assert not any("._" in each.name for each in node.names if each.name.startswith("dagster")), path
        elif isinstance(node, ast.ImportFrom) and _PRIVATE.match(node.module or ""):
            yield node


def test_no_other_module_imports_a_private_name() -> None:
    others = {path: [each.module for each in private(path)] for path in SOURCES if path != MODULE}
    assert {path: found for path, found in others.items() if found} == {}


def test_each_private_name_is_used_is_exported_nowhere_and_has_its_reason_above() -> None:
    others = "".join(text for path, text in SOURCES.items() if path != MODULE)
    found = [*private(MODULE)]
    assert found
    for node in found:
        for alias in node.names:
            assert not hasattr(dg, alias.name), f"import {alias.name} from dagster"
            # A function that brings one late is the name that others use.
            assert alias.name in others or node.col_offset
        above = SOURCES[MODULE].splitlines()[node.lineno - 2].strip()
        assert above.startswith("#") or node.module in above, f"say why {node.module} is needed"
