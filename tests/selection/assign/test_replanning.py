"""Codes that are void although a plan names them: voiding and publishing cannot cross, and a way out if it happened."""

from __future__ import annotations

import random
import threading
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regworkers_core.domain.reasons import RequestError, TransientFailure
from regworkers_core.domain.selection import DrawBusy, Outcome
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.release import publish_phase, resume_blocked
from regworkers_core.selection.assign.replan import replan_codes
from regworkers_core.selection.campaigns.registry import draw_lease
from regworkers_core.selection.codes.stock import void_codes
from regworkers_core.selection.drains import SELECTIONS
from regworkers_core.selection.notify import counts
from regworkers_core.selection.promises import codes_and_winners_biject, counts_match
from tests.selection.assign.crash import PASSES, SECTIONS, crash_and_recover
from tests.selection.assign.test_assigning import dead, items, send, take
from tests.support.drains import run
from tests.support.draws import (
    CAMPAIGN,
    Row,
    add_codes,
    all_completed,
    code_at,
    confirmed,
    findings,
    market_status,
    next_phase,
    publish,
    record_of,
    result,
)
from tests.support.shared import emptied
from tests.support.terminal import regworkers

ROWS = result({"berlin": 4}, waiting=2)
WORD = f"{CAMPAIGN}:1"


@pytest.fixture
def drawn(runtime: Runtime) -> Runtime:
    confirmed(runtime, ROWS, ["berlin"])
    add_codes(runtime, "berlin", 6)
    return runtime


def void(runtime: Runtime, position: int) -> None:
    """As a hand in the database does it, past every guard."""
    runtime.database["codes"].update_one({"_id": code_at("berlin", position)}, {"$set": {"status": "VOID"}})


def voided(runtime: Runtime, position: int) -> str:
    (done,) = void_codes(
        runtime,
        runtime.campaigns.require(CAMPAIGN),
        [code_at("berlin", position)],
        reason="leaked",
        run_id="v",
    )
    return done.outcome


def replanned(runtime: Runtime, *, confirm: str = WORD) -> list[tuple[int, int | None]]:
    found = replan_codes(runtime, CAMPAIGN, "berlin", run_id="r", confirm=confirm)
    return [(move.before, move.after) for move in found.moves]


def test_a_code_is_not_voided_while_a_plan_is_made(drawn: Runtime) -> None:
    seen: list[str] = []

    def between(step: str) -> None:
        if step == "draw.after_register":
            with pytest.raises(DrawBusy):
                voided(drawn, 2)
            seen.append(step)

    with draw_lease(drawn, CAMPAIGN, "publication") as lease:
        publish_phase(drawn, CAMPAIGN, 1, token=lease.token, run_id="publication", on_step=between)
    assert seen and "may be planned" in voided(drawn, 2)
    run(drawn, SELECTIONS)
    assert findings(drawn, ROWS) == [] and market_status(drawn) == all_completed("berlin")


def test_a_plan_is_not_made_while_codes_are_voided_and_passes_over_them_afterwards(drawn: Runtime) -> None:
    drawn.database["codes"].delete_many({"position": {"$gt": 3}})
    publish(drawn)
    assert market_status(drawn)["berlin"] == "BLOCKED"
    add_codes(drawn, "berlin", 2, first=4)
    crossed: list[Exception] = []

    def plan() -> None:
        try:
            resume_blocked(drawn, CAMPAIGN)
        except TransientFailure as failure:
            crossed.append(failure)

    def between(_step: str) -> None:
        planning = threading.Thread(target=plan)
        planning.start()
        planning.join()

    (done,) = void_codes(
        drawn,
        drawn.campaigns.require(CAMPAIGN),
        [code_at("berlin", 2)],
        reason="leaked",
        run_id="v",
        on_step=between,
    )
    assert done.done and "works on the draw" in str(crossed[0])
    assert resume_blocked(drawn, CAMPAIGN)["berlin"]["queued"] == 1
    run(drawn, SELECTIONS)
    assert findings(drawn, ROWS) == []
    given = sorted(each["position"] for each in drawn.database["selections"].find())
    assert given == [1, 3, 4, 5]


def test_a_planned_code_that_is_void_is_replaced_by_the_next_position_and_the_plan_keeps_both(
    drawn: Runtime,
) -> None:
    publish(drawn)
    void(drawn, 3)
    void(drawn, 5)
    run(drawn, SELECTIONS)
    (dead_letter,) = dead(drawn)
    assert dead_letter.attributes["reason"] == "CODE_CONFLICT"
    assert "`regworkers draw replan-code summer berlin`" in dead_letter.attributes["error"]
    assert replanned(drawn, confirm="") == [(3, 6)]
    assert regworkers(drawn, "draw", "replan-code", CAMPAIGN, "berlin", "--format", "json").code == 1
    assert market_status(drawn)["berlin"] == "ASSIGNING", "finding them changes nothing"

    assert replanned(drawn) == [(3, 6)]
    run(drawn, SELECTIONS)
    assert market_status(drawn) == all_completed("berlin")
    given = {each["rank"]: each["position"] for each in drawn.database["selections"].find()}
    third = sorted(given)[2]
    assert given[third] == 6 and sorted(given.values()) == [1, 2, 4, 6]
    record = record_of(drawn)
    (kept,) = record.latest.markets["berlin"]["replanned"]
    assert (kept["row"], kept["from"], kept["to"], kept["runId"]) == (3, 3, 6, "r")
    assert record.highest_planned("berlin") == 6

    # The next phase goes on behind it: 5 is void, 6 is given, 7 was never planned.
    add_codes(drawn, "berlin", 2, first=7)
    waits = next(row for row in ROWS if row.outcome is Outcome.WAITLIST)
    rows = next_phase(ROWS, {waits.ref: Row(waits.ref, Outcome.WINNER, "berlin", waits.rank)})
    confirmed(drawn, rows, ["berlin"], phase=2)
    publish(drawn, 2)
    run(drawn, SELECTIONS)
    assert [each["position"] for each in drawn.database["selections"].find({"phase": 2})] == [7]


def test_a_code_that_took_a_void_ones_place_is_replaced_as_well(drawn: Runtime) -> None:
    publish(drawn)
    void(drawn, 1)
    assert replanned(drawn) == [(1, 5)]
    void(drawn, 5)
    assert replanned(drawn) == [(5, 6)]
    kept = record_of(drawn).latest.markets["berlin"]["replanned"]
    assert [(each["from"], each["to"]) for each in kept] == [(1, 5), (5, 6)]
    run(drawn, SELECTIONS)
    assert market_status(drawn) == all_completed("berlin")
    assert sorted(each["position"] for each in drawn.database["selections"].find()) == [2, 3, 4, 6]


def given_by_hand(runtime: Runtime, position: int, **fields: str) -> None:
    found = runtime.database["codes"].update_one({"_id": code_at("berlin", position)}, {"$set": fields})
    assert found.matched_count == 1


@pytest.mark.parametrize("given", [{"status": "ASSIGNED", "ref": "a-guest"}, {"status": "REDEEMED"}])
def test_a_planned_code_that_was_given_outside_becomes_void_and_its_winner_gets_the_next_one(
    drawn: Runtime, given: dict[str, str]
) -> None:
    publish(drawn)
    given_by_hand(drawn, 4, **given)
    run(drawn, SELECTIONS)
    (dead_letter,) = dead(drawn)
    assert "find out who has it" in dead_letter.attributes["error"]
    assert "`regworkers draw replan-code summer berlin`" in dead_letter.attributes["error"]
    assert replanned(drawn, confirm="") == [(4, 5)]
    assert drawn.database["codes"].count_documents({"status": "VOID"}) == 0, "finding them changes nothing"

    assert replanned(drawn) == [(4, 5)]
    run(drawn, SELECTIONS)
    assert market_status(drawn) == all_completed("berlin") and findings(drawn, ROWS) == []
    assert drawn.codes.get([code_at("berlin", 4)])[code_at("berlin", 4)].status == "VOID"
    assert not counts.differences(counts.compare(drawn, CAMPAIGN, 1)), "it counts for no winner"


def test_codes_that_are_given_outside_one_after_the_other_are_all_replaced_and_none_is_taken_twice(
    drawn: Runtime,
) -> None:
    add_codes(drawn, "berlin", 2, first=7)
    publish(drawn)
    for position in (2, 4):
        given_by_hand(drawn, position, status="REDEEMED")
    assert replanned(drawn) == [(2, 5), (4, 6)]
    given_by_hand(drawn, 1, status="REDEEMED")
    assert replanned(drawn) == [(1, 7)]
    run(drawn, SELECTIONS)
    assert market_status(drawn) == all_completed("berlin")
    assert sorted(each["position"] for each in drawn.database["selections"].find()) == [3, 5, 6, 7]
    assert drawn.database["codes"].count_documents({"status": "VOID"}) == 3
    assert [each["from"] for each in record_of(drawn).latest.markets["berlin"]["replanned"]] == [2, 4, 1]


def test_a_code_that_names_another_winner_is_left_to_its_issuer(drawn: Runtime) -> None:
    publish(drawn)
    given_by_hand(drawn, 2, status="ASSIGNED", ref=ROWS[3].ref)
    with pytest.raises(RequestError, match="position 2 is given to another winner"):
        replanned(drawn)
    assert drawn.database["codes"].count_documents({"status": "VOID"}) == 0


def test_a_next_position_that_is_given_already_is_not_taken(drawn: Runtime) -> None:
    publish(drawn)
    void(drawn, 1)
    given_by_hand(drawn, 5, status="ASSIGNED", ref="a-guest")
    with pytest.raises(RequestError, match="position 5 would be next, and its code is ASSIGNED"):
        replanned(drawn)
    drawn.database["codes"].update_many({"position": {"$in": [2, 5]}}, {"$set": {"status": "VOID"}})
    add_codes(drawn, "berlin", 2, first=7)
    given_by_hand(drawn, 7, status="ASSIGNED", ref="a-guest")
    with pytest.raises(RequestError, match="position 7 would be next, and its code is ASSIGNED"):
        replanned(drawn)


def test_a_waiting_market_says_what_it_needs_and_an_unknown_one_lists_the_known(drawn: Runtime) -> None:
    drawn.database["codes"].delete_many({"position": {"$gt": 3}})
    publish(drawn)
    with pytest.raises(RequestError, match=r"BLOCKED: .*`regworkers codes import <csv> --campaign summer"):
        replanned(drawn)
    with pytest.raises(RequestError, match=r"no market 'paris' to assign: there are berlin$"):
        replan_codes(drawn, CAMPAIGN, "paris", run_id="r")


def test_without_a_code_for_every_such_winner_none_is_replanned(drawn: Runtime) -> None:
    publish(drawn)
    for position in (1, 2, 3):
        void(drawn, position)
    with pytest.raises(RequestError, match=f"should be {WORD}"):
        replanned(drawn, confirm=f"{CAMPAIGN}:2")
    found = replan_codes(drawn, CAMPAIGN, "berlin", run_id="r", confirm=WORD)
    assert (found.missing, found.applied) == (1, False)
    assert "replanned" not in record_of(drawn).latest.markets["berlin"]


def test_a_winner_who_already_has_the_void_code_gets_no_second_one(drawn: Runtime) -> None:
    publish(drawn)
    run(drawn, SELECTIONS)
    void(drawn, 2)
    with pytest.raises(RequestError, match="COMPLETED"):
        replanned(drawn)
    drawn.database["draws"].update_one(
        {"_id": CAMPAIGN},
        {"$set": {"phases.1.status": "PUBLISHED", "phases.1.markets.berlin.status": "ASSIGNING"}},
    )
    drawn.database["selection_chunks"].update_many({}, {"$unset": {"doneAt": ""}})
    with pytest.raises(RequestError, match="has this code already"):
        replanned(drawn)


def test_a_run_that_dies_after_it_replanned_is_followed_by_one_that_sends_the_chunks(drawn: Runtime) -> None:
    publish(drawn)
    void(drawn, 4)
    run(drawn, SELECTIONS)

    def dies(step: str) -> None:
        if step == "draw.after_replan":
            raise InterruptedError(step)

    with pytest.raises(InterruptedError, match=r"draw\.after_replan"):
        replan_codes(drawn, CAMPAIGN, "berlin", run_id="victim", confirm=WORD, on_step=dies)
    found = replan_codes(drawn, CAMPAIGN, "berlin", run_id="again", confirm=WORD)
    assert (found.moves, found.queued) == ((), 1)
    run(drawn, SELECTIONS)
    assert market_status(drawn) == all_completed("berlin")
    assert sorted(each["position"] for each in drawn.database["selections"].find()) == [1, 2, 3, 5]


MARKETS = ("berlin", "paris")


@pytest.mark.slow
@settings(max_examples=6, suppress_health_check=list(HealthCheck))
@given(
    winners=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    void=st.sets(st.integers(1, 9), max_size=4),
    chunk=st.integers(1, 4),
    order=st.randoms(use_true_random=False),
)
def test_every_winner_has_one_code_and_every_given_code_one_winner(
    shared: Runtime, winners: tuple[int, int], void: set[int], chunk: int, order: random.Random
) -> None:
    # Objects stay from one example to the next, so that each has a campaign of its own.
    campaign_id, rows = uuid.uuid4().hex, result(dict(zip(MARKETS, winners, strict=True)), waiting=3)
    found = emptied(shared)
    selection = found.settings.selection.model_copy(update={"chunk_winners": chunk})
    runtime = Runtime(found.settings.model_copy(update={"selection": selection}))
    confirmed(runtime, rows, MARKETS, campaign_id=campaign_id)
    for name, number in zip(MARKETS, winners, strict=True):
        add_codes(runtime, name, number + len(void), campaign_id=campaign_id)
        bad = {"$in": [code_at(name, position) for position in void]}
        runtime.database["codes"].update_many({"_id": bad}, {"$set": {"status": "VOID"}})

    publish(runtime, campaign_id=campaign_id)
    chunks = items(take(runtime))
    repeated = [*chunks, *chunks]
    order.shuffle(repeated)
    send(runtime, *repeated)
    run(runtime, SELECTIONS)

    assert findings(runtime, rows, campaign_id=campaign_id) == []
    assert market_status(runtime, campaign_id=campaign_id) == all_completed(*MARKETS)
    for promise in (codes_and_winners_biject, counts_match):
        assert promise(runtime, campaign_id).passed
    assert not {each["position"] for each in runtime.database["selections"].find()} & void
    for each in (found, runtime):
        each.mongo.close()


@pytest.mark.slow
@pytest.mark.namespace("test", **SECTIONS)
@pytest.mark.parametrize("step", PASSES)
def test_a_worker_killed_at_any_step_loses_nothing_and_gives_nothing_twice(
    runtime: Runtime, step: str
) -> None:
    verdict = crash_and_recover(runtime, step, min(2, PASSES[step]))
    assert verdict.clean, verdict
    # Only a message whose send was not noted may come again, with its key.
    assert step.startswith("notifications.") or not verdict.repeats, verdict
