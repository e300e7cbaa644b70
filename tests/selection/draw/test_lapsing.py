"""Seats that lapse because no one claimed them: the next in the order gets them, and no one loses one unseen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from regworkers_core.domain.reasons import RequestError
from regworkers_core.runtime import Runtime
from regworkers_core.selection.codes.stock import mark_blocked, struck_codes
from regworkers_core.selection.drains import SELECTIONS
from regworkers_core.selection.draw.changes import open_phase
from regworkers_core.selection.draw.gate import AcceptedFindings, NotAccepted
from regworkers_core.selection.draw.terms import TopUp
from regworkers_core.selection.draw_run import DrawRun
from tests.selection.draw.replay import replay_of
from tests.selection.draw.world import CAMPAIGN, artefact, close_campaign, draw, drawn
from tests.support.drains import run
from tests.support.draws import record_of
from tests.support.runtimes import test_settings

REASON = "the shop says that they never came"
DAY = 86_400.0


class Line(NamedTuple):
    """Of result.txt."""

    ref: str
    market: str
    rank: int
    outcome: str


def lines(runtime: Runtime, phase: int = 1) -> dict[str, Line]:
    found = [each.split("|") for each in artefact(runtime, "result.txt", phase).decode().splitlines()]
    return {ref: Line(ref, market, int(rank or 0), outcome) for ref, market, rank, outcome in found}


def of_outcome(runtime: Runtime, outcome: str) -> list[Line]:
    """In the order of the draw."""
    found = [each for each in lines(runtime).values() if each.outcome == outcome]
    return sorted(found, key=lambda each: each.rank)


def lapsing(runtime: Runtime, ref: str, *accepted: str) -> DrawRun:
    """A run of the phase in which this seat lapses."""
    terms = TopUp({}, {}, ((ref, "UNCLAIMED"),), "not claimed")
    number = open_phase(runtime, CAMPAIGN, terms, run_id="r")
    return draw(runtime, phase=number, accept=AcceptedFindings.of(accepted, REASON if accepted else ""))


@pytest.fixture
def completed(runtime: Runtime) -> Runtime:
    """Drawn, and every winner has a code."""
    close_campaign(runtime)
    drawn(runtime)
    run(runtime, SELECTIONS)
    return runtime


@pytest.fixture
def a_day_later(completed: Runtime) -> Iterator[Runtime]:
    later = Runtime(test_settings(completed.names.prefix), clock=lambda: time.time() + DAY + 60)
    yield later
    later.mongo.close()


def test_a_seat_that_lapses_goes_to_the_next_in_the_order_with_a_code_of_a_new_position_and_no_message(
    completed: Runtime, a_day_later: Runtime
) -> None:
    gone = next(each for each in of_outcome(completed, "WINNER") if each.market == "paris")
    following = of_outcome(completed, "WAITLIST")[0]
    assert [each.name for each in lapsing(a_day_later, gone.ref).steps(f"{CAMPAIGN}:2")][-1] == "publish"
    assert record_of(completed).latest.gate["findings"] == []
    run(completed, SELECTIONS)

    after = lines(completed, 2)
    assert after[gone.ref] == Line(gone.ref, "", gone.rank, "UNCLAIMED")
    assert after[following.ref] == Line(following.ref, "paris", following.rank, "WINNER")
    changed = {ref for ref, line in lines(completed).items() if after[ref] != line}
    assert changed == {gone.ref, following.ref}
    messages = [(each["ref"], each["type"]) for each in completed.database["outbox"].find({"phase": 2})]
    assert messages == [(following.ref, "winner")]
    (given,) = completed.database["selections"].find({"phase": 2})
    assert (given["ref"], given["position"]) == (following.ref, 4), "three were planned before"
    (lost,) = struck_codes(completed, CAMPAIGN)
    assert (lost.ref, lost.to_block) == (gone.ref, True)
    assert mark_blocked(completed, CAMPAIGN, reason="not claimed", run_id="r") == 1
    assert not struck_codes(completed, CAMPAIGN)[0].to_block
    assert replay_of(completed).passed


def test_only_a_winner_of_the_phase_before_has_a_seat_that_can_lapse(completed: Runtime) -> None:
    waiting = of_outcome(completed, "WAITLIST")[0]
    with pytest.raises(RequestError, match=f"{waiting.ref} has no seat that could lapse"):
        lapsing(completed, waiting.ref)
    assert list(record_of(completed).phases) == [1]


def test_the_gate_finds_a_seat_that_lapses_within_a_day_of_the_result_or_whose_code_was_redeemed(
    completed: Runtime,
) -> None:
    gone = of_outcome(completed, "WINNER")[0]
    list(lapsing(completed, gone.ref).steps())
    completed.database["codes"].update_one({"ref": gone.ref}, {"$set": {"status": "REDEEMED"}})
    word = f"{CAMPAIGN}:2"
    with pytest.raises(NotAccepted) as refused:
        draw(completed, phase=2).publish(word)
    assert [each.name for each in refused.value.findings] == ["early_unclaimed", "redeemed_unclaimed"]
    early, redeemed = (each.detail for each in refused.value.findings)
    assert "(1) less than 24 hours after the result of phase 1" in early and "redeemed (1)" in redeemed
    with pytest.raises(NotAccepted, match="redeemed_unclaimed"):
        lapsing(completed, gone.ref, "early_unclaimed").publish(word)
    assert lapsing(completed, gone.ref, "early_unclaimed", "redeemed_unclaimed").publish(word).state == "done"
    accepted = [each["finding"] for each in record_of(completed).latest.accepted]
    assert accepted == ["early_unclaimed", "redeemed_unclaimed"]
