"""`regworkers reconcile` as operators type it where the replica is ahead."""

from __future__ import annotations

import pytest

from regworkers_core.runtime import Runtime
from tests.replication.reconcile.test_acceptance_on_real_servers import (
    created_again_by_a_slow_clock,
    name_of,
)
from tests.replication.reconcile.test_reconcile_on_real_servers import saving
from tests.support.terminal import regworkers
from tests.support.typing_in import Typed

RECONCILE = ("reconcile", "--campaign", "summer")
JSON = ("--format", "json")


def test_the_entries_are_listed_the_number_is_typed_and_it_is_taken_back(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    created_again_by_a_slow_clock(runtime)
    typed = Typed(runtime, monkeypatch, capsys)
    dry = typed(*RECONCILE, "--repair")
    assert dry.code == 1 and "summer:e1" in dry.stdout and "--accept-source 1" in dry.stdout
    with saving(runtime):
        wrong = typed(*RECONCILE, "--repair", "--apply", "--accept-source", "2", *JSON)
        assert wrong.code == 1 and wrong.document["acceptance"]["accepted"] == 0
        assert "were typed" in wrong.document["acceptance"]["advice"] and name_of(runtime) == "before"
        done = typed(*RECONCILE, "--repair", "--apply", "--accept-source", "1", *JSON)
    assert done.code == 0 and done.document["clean"] and name_of(runtime) == "again"
    acceptance = done.document["acceptance"]
    assert (acceptance["found"], acceptance["accepted"]) == (1, 1)
    assert acceptance["entries"][0]["id"] == "summer:e1"
    listed = typed(*RECONCILE, "--undo", *JSON)
    assert listed.code == 0 and listed.document["counts"]["returnable"] == 1
    assert typed(*RECONCILE, "--undo", "--apply", "--yes-undo", "3").code == 1 and name_of(runtime) == "again"
    back = typed(*RECONCILE, "--undo", "--apply", "--yes-undo", "1")
    assert back.code == 0 and "1 restored" in back.stdout and name_of(runtime) == "before"
    none = typed(*RECONCILE, "--undo")
    assert none.code == 0 and "no acceptance to take back" in none.stdout
    assert typed(*RECONCILE, "--undo", "--apply", "--yes-undo", "1").code == 1
    for answer in (dry, wrong, done, listed, back):
        assert "example.com" not in answer.stdout and "Łukasz" not in answer.stdout
    taken_back, _refused, accepted = [
        action
        for action in runtime.operator_actions.history(what="reconcile")
        if action.result.get("acceptance")
    ]
    assert accepted.arguments["acceptSource"] == 1 and accepted.result["accepted"] == 1
    assert taken_back.what == "reconcile undo" and taken_back.result["restored"] == 1
    assert taken_back.result["acceptance"] == accepted.result["acceptance"] == acceptance["acceptance"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--accept-source", "1"), "needs --repair"),
        (("--apply",), "needs --repair or --undo"),
        (("--undo", "--apply"), "needs --yes-undo N"),
        (("--undo", "--yes-undo", "1"), "add --apply"),
        (("--repair", "--apply", "--after-restore"), "needs --accept-source"),
        (("--repair", "--undo"), "mutually exclusive"),
        (("--yes-undo", "1"), "needs --undo"),
    ],
)
def test_words_that_do_not_go_together_are_said_before_anything_is_read(
    words: tuple[str, ...], said: str
) -> None:
    answer = regworkers(None, "reconcile", *words)
    assert (answer.code, answer.stdout) == (2, "") and said in answer.stderr
