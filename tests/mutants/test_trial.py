"""The trial of planted defects tells red from what only looks like it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.table import Mutant
from tests.mutants.trial import CannotTry, Outcome, Scratch, Trial

# A dozen runs of pytest.
pytestmark = pytest.mark.slow
_CODE = "def double(number):\n    return 2 * number\n"
_TESTS = """
import time
import pytest
from code_under_test import double

def test_doubles():
    assert double(3) == 6

def test_sees_nothing():
    assert double

def test_fails_always():
    assert double(3) == 7

@pytest.mark.skip
def test_is_skipped():
    assert double(3) == 6

def test_waits():
    while double(1) == 3:
        time.sleep(0.1)
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "code_under_test.py").write_text(_CODE)
    (tmp_path / "test_double.py").write_text(_TESTS)
    return tmp_path


def _mutant(new: str, *tests: str) -> Mutant:
    named = tuple(f"test_double.py::{test}" for test in tests)
    return Mutant("double", "it doubles", "code_under_test.py", "2 * number", new, named)


def _tried(tree: Path, mutant: Mutant) -> Trial:
    scratch = Scratch(tree, {}, limit_seconds=10.0)
    return scratch.attempt(mutant, scratch.sound(mutant.tests))


def test_a_defect_is_red_when_each_of_its_tests_fails_and_is_gone_afterwards(tree: Path) -> None:
    assert _tried(tree, _mutant("3 * number", "test_doubles")).outcome is Outcome.RED
    assert (tree / "code_under_test.py").read_text() == _CODE
    both = _tried(tree, _mutant("3 * number", "test_doubles", "test_sees_nothing"))
    assert (both.outcome, both.tests) == (Outcome.SURVIVED, ("test_double.py::test_sees_nothing",))


@pytest.mark.parametrize("test", ["test_fails_always", "test_is_skipped"])
def test_a_test_that_does_not_pass_without_the_defect_proves_nothing(tree: Path, test: str) -> None:
    assert _tried(tree, _mutant("3 * number", test)).outcome is Outcome.NO_PROOF


def test_code_that_cannot_be_imported_with_the_defect_proves_nothing(tree: Path) -> None:
    assert _tried(tree, _mutant("2 *", "test_doubles")).outcome is Outcome.NO_PROOF


def test_tests_that_do_not_end_with_the_defect_are_late(tree: Path) -> None:
    mutant = _mutant("3 * number", "test_waits")
    sound = Scratch(tree, {}).sound(mutant.tests)
    assert Scratch(tree, {}, limit_seconds=2.0).attempt(mutant, sound).outcome is Outcome.LATE


def test_an_old_text_that_does_not_occur_once_is_refused() -> None:
    with pytest.raises(ValueError, match="occurs 0 times"):
        _mutant("3 * number").applied("return number\n")
    with pytest.raises(ValueError, match="occurs 2 times"):
        _mutant("3 * number").applied(_CODE * 2)


def test_packages_that_are_not_those_of_the_copy_are_noticed(tree: Path) -> None:
    Scratch(tree, {}).prove_imports(["code_under_test"])
    with pytest.raises(CannotTry, match="regworkers_core is imported from"):
        Scratch(tree, {}).prove_imports(["code_under_test", "regworkers_core"])
