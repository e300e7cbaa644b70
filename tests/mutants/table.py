"""The planted defects: `mutants.yml`, one for each safeguard that is written down there."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from regworkers_core.settings import PROJECT_ROOT

TABLE = Path(__file__).with_name("mutants.yml")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A defect: `old` (which occurs once in `file`) becomes `new`, which breaks `promise`. Each of `tests` must then
    fail: node ids without parameters, of which one is enough.
    """

    name: str
    promise: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Mutant:
        """Raises TypeError for a field that is missing or unknown."""
        return cls(**{**fields, "tests": tuple(fields.get("tests", ()))})

    def applied(self, text: str) -> str:
        """The text of `file` with the defect. Raises ValueError unless `old` occurs exactly once."""
        if (times := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: the old text occurs {times} times in {self.file}, not once")
        return text.replace(self.old, self.new)


def mutants() -> list[Mutant]:
    """All of them, in the order of the file."""
    return [Mutant.parse(fields) for fields in yaml.safe_load(TABLE.read_text(encoding="utf-8"))]


def problems(mutant: Mutant, root: Path = PROJECT_ROOT) -> list[str]:
    """Why it cannot be tried on the code of today; empty if it can."""
    found = []
    try:
        if mutant.applied((root / mutant.file).read_text(encoding="utf-8")) and mutant.old == mutant.new:
            found.append(f"{mutant.name}: it changes nothing")
    except (ValueError, OSError) as error:
        found.append(str(error))
    if not mutant.tests:
        found.append(f"{mutant.name}: it names no test")
    for test in mutant.tests:
        path, _, name = test.partition("::")
        if name not in _functions(root / path):
            found.append(f"{mutant.name}: there is no test {test}")
    return found


@cache
def _functions(path: Path) -> Sequence[str]:
    if not path.is_file():
        return ()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
