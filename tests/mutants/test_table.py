"""Every planted defect fits the code of today."""

from __future__ import annotations

from tests.mutants.table import mutants, problems


def test_each_old_text_occurs_once_and_each_named_test_exists() -> None:
    assert [problem for mutant in mutants() for problem in problems(mutant)] == []


def test_there_is_one_defect_for_each_of_forty_promises_or_more() -> None:
    found = mutants()
    assert len({each.name for each in found}) == len({each.promise for each in found}) == len(found) >= 40
