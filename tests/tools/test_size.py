"""The size of the code has limits, which only a sentence raises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools import size
from tools.write_tables import SIZES, parts

MODULE = '''"""Explains
itself."""

import os
from pathlib import (
    Path,
)

# A comment.
TEXT = """
two lines of text"""


def act() -> str:
    """Acts."""

    return (  # both
        os.name
    )
'''


def test_explanations_blank_lines_and_imports_are_no_code() -> None:
    assert size.code_lines(MODULE) == 6
    assert size.code_lines("") == 0


def test_a_folder_above_its_limit_or_without_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size, "LIMITS", {name: size.Size(1_000, 100_000) for name in size.LIMITS})
    monkeypatch.setitem(size.LIMITS, "regworkers_core/drains", size.Size(1, 10_000))
    monkeypatch.delitem(size.LIMITS, "regworkers_core/engine")
    monkeypatch.setattr(size, "TESTS_LIMIT", 10)
    drains, engine, tests = size.findings()
    assert re.fullmatch(r"regworkers_core/drains has \d+ modules, and its limit is 1", drains)
    assert engine == "regworkers_core/engine has no limit"
    assert re.fullmatch(r"tests have [\d,]+ lines, and their limit is 10", tests)


def test_a_sentence_of_the_decision_raises_a_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "- `regworkers_core/drains`: 10 modules and 1,200 lines of code, because a drain was added.\n"
        "- `regworkers_core/engine`: 90 modules and 9,000 lines of code.\n"
    )
    monkeypatch.setattr(size, "DECISION", page)
    assert size.limits() == size.LIMITS | {"regworkers_core/drains": size.Size(10, 1_200)}


def test_the_page_shows_every_limit() -> None:
    def limits(table: str) -> list[str]:
        return re.sub(r"(?m)^(\|[^|]+\|)[^|]+\|([^|]+\|)[^|]+\|", r"\1\2", table).splitlines()

    ((page, name),) = SIZES
    assert limits(parts(page, name)[1]) == limits(size.size_table()), "run `make docs`"
