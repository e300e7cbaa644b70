"""What a person decides about a draw, at the terminal and on the launchpad: strikes, confirmation, retry, annulment."""

from __future__ import annotations

from pathlib import Path

from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.lifecycle import draw_lease
from regworkers_core.selection.drains import SELECTIONS
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


def test_an_annulment_shows_what_it_stops_and_says_who_blocks_the_codes(runtime: Runtime, face: Face) -> None:
    published(runtime, result({"berlin": 3}, waiting=2), ["berlin"], codes=4)
    run(runtime, SELECTIONS)
    seen = face.does("draw annul", campaign_id=CAMPAIGN)
    assert "nothing was annulled" in seen.text and f"{CAMPAIGN}:1" in seen.text
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
