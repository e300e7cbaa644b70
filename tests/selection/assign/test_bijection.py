"""Codes and winners biject, whatever is void, however a plan is cut, and in whatever order chunks come."""

from __future__ import annotations

import random
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regworkers_core.runtime import Runtime
from regworkers_core.selection.drains import SELECTIONS
from regworkers_core.selection.promises import codes_and_winners_biject, counts_match
from tests.selection.assign.crash import PASSES, SECTIONS, crash_and_recover
from tests.selection.assign.test_assigning import items, send, take
from tests.support.drains import run
from tests.support.draws import (
    add_codes,
    all_completed,
    code_at,
    confirmed,
    findings,
    market_status,
    publish,
    result,
)
from tests.support.shared import emptied

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
