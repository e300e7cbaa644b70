"""Clocks and threads come from one place, so that a simulation can replace them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from regworkers_core.settings import PROJECT_ROOT

CORE = PROJECT_ROOT / "regworkers_core"
PLAYED = (
    "../fairdraw",
    "adapters",
    "analytics",
    "drains",
    "eligibility",
    "engine",
    "replication",
    "selection",
)
# Signals need the main thread of Python itself.
EXEMPT = {
    "fairdraw/scheduling.py",
    "engine/stop.py",
}
_TAKEN = {
    "time": {"monotonic", "perf_counter", "sleep", "time"},
    "datetime": {"now", "utcnow", "today"},
}


def _sources() -> Iterator[Path]:
    for folder in PLAYED:
        yield from (CORE / folder).rglob("*.py")
    yield from (CORE / "dependencies.py", CORE / "runtime.py")


def test_no_other_module_takes_time_or_threads_by_itself() -> None:
    found: list[str] = []
    for path in _sources():
        name = path.resolve().relative_to(PROJECT_ROOT).as_posix().removeprefix("regworkers_core/")
        if name in EXEMPT:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                taken = [each.name for each in node.names if each.name in ("threading", "queue")]
            elif isinstance(node, ast.ImportFrom):
                taken = [node.module] if node.module in ("concurrent.futures", "threading", "time") else []
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                taken = [node.attr] if node.attr in _TAKEN.get(node.value.id, ()) else []
            else:
                continue
            found += [f"{name}:{node.lineno} {each}" for each in taken]
    assert not found, "take it from fairdraw.scheduling"
