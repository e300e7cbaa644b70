"""Erase one entry, and repeat erasures: dry runs first, words to type, and nothing of a fan in what is said."""

from __future__ import annotations

import pytest

from regworkers_core.runtime import Runtime
from tests.operations.dead_letters.world import FAST
from tests.operations.erasure.world import CODE, FAN, draw, enter, plant
from tests.support.entries import document, key, put, source
from tests.support.faces import Face
from tests.support.terminal import regworkers

pytestmark = pytest.mark.namespace("module", dead_letters=FAST)

E1 = key("e1")
ONE = {"campaign_id": "summer", "entry_id": "e1"}


def test_without_a_word_it_only_says_what_it_would_do(runtime: Runtime, face: Face) -> None:
    plant(runtime, E1)
    looked = face.does("erase", **ONE)
    assert looked.fine and "invites" in looked.text and "recovery" in looked.text
    assert source(runtime, E1) is not None and runtime.operator_actions.history() == []


def test_with_the_entry_s_id_it_erases_and_lists_what_stays_and_hands_out_the_codes(
    runtime: Runtime, face: Face
) -> None:
    plant(runtime, E1)
    draw(runtime, E1)
    done = face.does("erase", apply=True, **ONE)
    assert done.fine and source(runtime, E1) is None
    for words in ("recovery", "what remains" if face.name == "terminal" else "what_remains", "erased, as of"):
        assert words in done.text
    assert not [value for value in (*FAN.values(), CODE) if value in done.text]
    assert done.files["codes.csv"].decode().split()[1] == f"{CODE},berlin,7,ASSIGNED"
    (action,) = runtime.operator_actions.history()
    assert (action.what, action.target, action.result["finished"]) == ("erase", "summer:e1", True)
    assert not [value for value in (*FAN.values(), CODE) if value in str(action)]


def test_an_id_may_begin_with_a_dash(runtime: Runtime) -> None:
    dashed = key("-e1")
    enter(runtime, dashed)
    assert regworkers(runtime, "erase", "summer", "-e1").code == 0
    assert regworkers(runtime, "erase", "summer", "-e1", "--apply", "--yes").code == 0
    assert source(runtime, dashed) is None


def test_an_unknown_entry_is_a_finding(runtime: Runtime, face: Face) -> None:
    for apply in (False, True):
        done = face.does("erase", apply=apply, campaign_id="summer", entry_id="unknown")
        assert not done.fine and "neither store knows this entry" in done.text
        assert "--after-restore" in done.text or "repeat_erasures" in done.text
    assert document(runtime, key("unknown")) is None


def test_a_wrong_id_is_one_line(runtime: Runtime, face: Face) -> None:
    answer = face.does("erase", campaign_id="summer:x", entry_id="e1")
    assert not answer.fine and "it has 8 bytes, and an id has 1 to" in answer.text


def test_what_came_back_is_left_until_its_number_is_confirmed(runtime: Runtime, face: Face) -> None:
    image = enter(runtime, E1)
    assert face.does("erase", apply=True, **ONE).fine
    put(runtime, E1, **image)
    for after_restore in (False, True):
        looked = face.does("erasures repeat", after_restore=after_restore)
        assert not looked.fine and "1 entries are back" in looked.text and "summer:e1" in looked.text
    assert face.does("erasures repeat", apply=True, campaign_id="summer").fine
    assert source(runtime, E1) is None
    for after_restore in (False, True):
        assert face.does("erasures repeat", after_restore=after_restore).fine
    action = runtime.operator_actions.history()[0]
    assert (action.what, action.target, action.result["done"]) == ("erasures repeat", "summer", 1)


def test_scripts_get_one_document(runtime: Runtime) -> None:
    plant(runtime, E1)
    looked = regworkers(runtime, "erase", "summer", "e1", "--format", "json").document
    assert looked["dryRun"] and looked["takenOut"]["invites"] == 3
    assert regworkers(runtime, "erasures", "repeat", "--format", "json").document["found"] == 0
