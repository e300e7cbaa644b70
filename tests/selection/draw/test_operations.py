"""What a person decides about a draw, at the terminal and on the launchpad: strikes, confirmation, retry, annulment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.registry import draw_lease
from regworkers_core.selection.drains import SELECTIONS
from regworkers_core.selection.draw.changes import annul
from tests.selection.draw import world
from tests.selection.draw.world import artefact, close_campaign, draw, drawn, ref_of
from tests.support.drains import run
from tests.support.draws import (
    CAMPAIGN,
    add_codes,
    confirmed,
    market_status,
    publish,
    published,
    record_of,
    result,
)
from tests.support.faces import Face

REASON = "the list of members was last year's"


def test_strikes_are_counted_first_and_kept_when_they_are_applied(
    runtime: Runtime, face: Face, tmp_path: Path
) -> None:
    close_campaign(runtime)
    file = tmp_path / "bots.txt"
    file.write_text(f"{ref_of(1)}|BOT\n")
    face.does("draw strike", campaign_id=world.CAMPAIGN, upload=file)
    assert runtime.draws.get(world.CAMPAIGN) is None and not runtime.operator_actions.history()
    assert face.does("draw strike", campaign_id=world.CAMPAIGN, upload=file, apply=True).fine
    (action,) = runtime.operator_actions.history()
    assert (action.what, action.target, action.result["strikes"]) == ("draw strike", world.CAMPAIGN, 1)
    drawn(runtime)
    assert artefact(runtime, "strikes.txt").decode() == f"{ref_of(1)}|BOT\n"
    late = face.does("draw strike", campaign_id=world.CAMPAIGN, upload=_other(file), apply=True)
    assert not late.fine
    file.write_bytes(b"\xff\xfe")
    wrong = face.does("draw strike", campaign_id=world.CAMPAIGN, upload=file)
    assert not wrong.fine and "not UTF-8 text" in wrong.text


def _other(file: Path) -> Path:
    other = file.with_name("others.txt")
    other.write_text(f"{ref_of(2)}|CHEAT\n")
    return other


def test_only_the_word_of_the_phase_publishes_it(runtime: Runtime, face: Face) -> None:
    close_campaign(runtime)
    early = face.does("draw confirm", confirm=f"{world.CAMPAIGN}:1")
    assert not early.fine and "is not ready for this step" in early.text
    list(draw(runtime).steps())
    for word, said in (
        (world.CAMPAIGN, "should be <campaignId>:<phase>"),
        (f"{world.CAMPAIGN}:2", f"{world.CAMPAIGN}"),
        ("mistyped:1", "there is no campaign 'mistyped'"),
    ):
        refused = face.does("draw confirm", confirm=word)
        assert not refused.fine and said in refused.text
    unknown = face.does("draw confirm", confirm=f"{world.CAMPAIGN}:1", accept=["luck"], reason="r")
    assert not unknown.fine and "finding luck cannot be accepted" in unknown.text
    assert not record_of(runtime).latest.confirmed
    done = face.does("draw confirm", confirm=f"{world.CAMPAIGN}:1")
    assert done.fine, done.text
    assert re.search(
        r"Phase 1 is confirmed: \d+ codes? and then \d+ messages go out by themselves", done.text
    )
    assert record_of(runtime).latest.confirmed
    action = runtime.operator_actions.history()[0]
    assert (action.what, action.target, action.outcome) == ("draw confirm", f"{world.CAMPAIGN}:1", "done")


def test_a_market_that_waited_for_codes_goes_on_when_it_is_retried(runtime: Runtime, face: Face) -> None:
    confirmed(runtime, result({"berlin": 4}), ["berlin"])
    add_codes(runtime, "berlin", 3)
    assert publish(runtime)["berlin"]["status"] == "BLOCKED"
    market = {"campaign_id": CAMPAIGN, "market_id": "berlin"}
    early = face.does("draw retry", **market)
    assert not early.fine and "4 needed and 3 available" in early.text
    add_codes(runtime, "berlin", 1, first=4)
    assert face.does("draw retry", **market).fine
    assert run(runtime, SELECTIONS).counts["written"] == 4
    assert market_status(runtime)["berlin"] == "COMPLETED"


def test_a_top_up_is_drawn_and_reported_and_only_the_word_of_its_phase_publishes_it(
    runtime: Runtime, face: Face, tmp_path: Path
) -> None:
    close_campaign(runtime)
    list(draw(runtime).steps(f"{world.CAMPAIGN}:1"))
    run(runtime, SELECTIONS)
    file = tmp_path / "bots.txt"
    file.write_text(f"{ref_of(1)}|BOT\n")
    terms: dict[str, Any] = {
        "campaign_id": world.CAMPAIGN,
        "capacities": {"paris": 5},
        "strikes": file,
    }
    silent = face.does("draw top-up", **terms)
    assert not silent.fine and "reason" in silent.text
    terms["reason"] = "a larger hall"
    wrong = face.does("draw top-up", **terms, confirm=f"{world.CAMPAIGN}:1")
    assert not wrong.fine and f"should be {world.CAMPAIGN}:2" in wrong.text
    assert list(record_of(runtime).phases) == [1], "nothing was done"
    seen = face.does("draw top-up", **terms)
    assert seen.fine is (face.name == "launchpad") and "nothing is published yet" in seen.text
    assert f"{world.CAMPAIGN}:2" in seen.text
    drawn_on = record_of(runtime).latest
    assert drawn_on.phase == 2 and not drawn_on.confirmed and drawn_on.strikes == ((ref_of(1), "BOT"),)
    assert face.does("draw top-up", **terms, confirm=f"{world.CAMPAIGN}:2").fine
    # A terminal waits for the codes.
    assert record_of(runtime).latest.status == ("PUBLISHED" if face.name == "launchpad" else "COMPLETED")
    action = runtime.operator_actions.history()[0]
    assert (action.what, action.target, action.result["phase"]) == ("draw top-up", world.CAMPAIGN, 2)


def test_a_top_up_fills_the_later_reserves_that_the_draw_declared_and_no_others(
    runtime: Runtime, face: Face
) -> None:
    berlin, paris = world.MARKETS
    declared = {**berlin, "laterReserves": [{"segment": "loyal", "seats": 1}]}
    # More who are loyal than seats.
    close_campaign(runtime, [world.entry(number) for number in range(60)], markets=[declared, dict(paris)])
    list(draw(runtime).steps(f"{world.CAMPAIGN}:1"))
    run(runtime, SELECTIONS)
    terms: dict[str, Any] = {"campaign_id": world.CAMPAIGN, "capacities": {"berlin": 5}, "reason": "a hall"}
    for reserves, said in (
        ({"berlin": {"press": 1}}, "(its later reserves: loyal 1)"),
        ({"paris": {"loyal": 1}}, "(its later reserves: none)"),
        ({"berlin": {"loyal": 2}}, "2 seats for loyal"),
    ):
        refused = face.does("draw top-up", **terms, reserves=reserves)
        assert not refused.fine and said in refused.text, refused.text
    assert list(record_of(runtime).phases) == [1], "nothing was done"
    terms["reserves"] = {"berlin": {"loyal": 1}}
    assert face.does("draw top-up", **terms, confirm=f"{world.CAMPAIGN}:2").fine
    run(runtime, SELECTIONS)
    (new,) = runtime.database["selections"].find({"phase": 2})
    won = runtime.database["entries"].find_one({"ref": new["ref"]})
    assert won is not None and new["marketId"] == "berlin" and won["segments"] == ["loyal"]


def test_the_preview_of_an_annulment_that_was_killed_says_that_it_was_begun_and_what_continues_it(
    runtime: Runtime, face: Face
) -> None:
    confirmed(runtime, result({"berlin": 3}), ["berlin"])

    def dies(name: str) -> None:
        raise KeyboardInterrupt(name)

    given: dict[str, Any] = {
        "reason": REASON,
        "confirm": f"{CAMPAIGN}:1",
        "run_id": "victim",
        "on_step": dies,
    }
    with pytest.raises(KeyboardInterrupt):
        annul(runtime, CAMPAIGN, **given)
    seen = face.does("draw annul", campaign_id=CAMPAIGN)
    assert "an annulment was begun at" in seen.text and "did not end" in seen.text
    assert ("`annul_draw`" if face.name == "launchpad" else "--apply`") in seen.text
    assert f"{CAMPAIGN}:1" in seen.text and seen.fine is (face.name == "launchpad")
    assert face.does("draw annul", campaign_id=CAMPAIGN, reason="another", apply=True).fine
    over = face.does("draw annul", campaign_id=CAMPAIGN)
    assert over.fine and "annulled at" in over.text and REASON in over.text


def test_the_preview_of_an_annulment_that_is_a_finding_says_so(runtime: Runtime, face: Face) -> None:
    for phase in (1, 2):
        confirmed(runtime, result({"berlin": 3}), ["berlin"], phase=phase)
    seen = face.does("draw annul", campaign_id=CAMPAIGN)
    assert "shows this annulment to everybody as a finding" in seen.text, seen.text


def test_an_annulment_shows_what_it_stops_and_says_who_blocks_the_codes(runtime: Runtime, face: Face) -> None:
    published(runtime, result({"berlin": 3}, waiting=2), ["berlin"], codes=4)
    run(runtime, SELECTIONS)
    seen = face.does("draw annul", campaign_id=CAMPAIGN)
    assert "nothing was annulled" in seen.text and f"{CAMPAIGN}:1" in seen.text
    assert "as a finding" not in seen.text
    assert seen.fine is (face.name == "launchpad"), "a preview with something to do is no failed run"
    with draw_lease(runtime, CAMPAIGN, "another"):
        busy = face.does("draw annul", campaign_id=CAMPAIGN, reason=REASON, apply=True)
    assert not busy.fine and "another run holds the draw" in busy.text
    silent = face.does("draw annul", campaign_id=CAMPAIGN, apply=True)
    assert not silent.fine and "needs a reason" in silent.text
    assert record_of(runtime).annulled is None
    done = face.does("draw annul", campaign_id=CAMPAIGN, reason=REASON, apply=True)
    blocks = "`block_struck_codes`" if face.name == "launchpad" else "`regworkers codes block"
    assert not done.fine and "fans hold 3 codes" in done.text and blocks in done.text
    record = record_of(runtime)
    assert record.annulled is not None and record.annulled["reason"] == REASON
    action = runtime.operator_actions.history()[0]
    assert (action.what, action.arguments["reason"], action.result["stopped"]) == ("draw annul", REASON, 5)
