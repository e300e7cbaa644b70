"""The check that keeps private words out of the project."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from regworkers_core.settings import PROJECT_ROOT


@pytest.fixture(scope="module")
def check() -> ModuleType:
    specification = importlib.util.spec_from_file_location(
        "check_words", PROJECT_ROOT / "tools/check_words.py"
    )
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("def keep_house() -> None:", "keep house"),
        ("class Told:", "told"),
        ("MongoDB is away.", "away"),
        ("# Nobody listens.", "nobody"),
        ("letter = queue.receive()", "letter"),
    ],
)
def test_a_private_word_is_found_in_prose_and_in_identifiers(check: ModuleType, line: str, word: str) -> None:
    assert [found for _, found, _ in check.findings(line)] == [word]


@pytest.mark.parametrize(
    "line",
    [
        "dead_letter = read()",
        "class DeadLetterPublisher:",
        "dead letters",
        "an amended list",
        'shown["told"]',
    ],
)
def test_the_terms_of_the_glossary_are_left_alone(check: ModuleType, line: str) -> None:
    assert check.findings(line) == []
