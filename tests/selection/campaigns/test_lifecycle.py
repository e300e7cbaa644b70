"""A campaign's status moves forward only, once per step, however many callers and repeats there are."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from regworkers_core.adapters.mongo.campaigns import Campaigns
from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.leases import LeaseHolder
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.registry import Advanced, advance, close_if_due
from tests.support.campaigns import advance_to, create
from tests.support.waiting import sleeping

pytestmark = pytest.mark.namespace("module")

DRAFT, OPEN, CLOSED, PROCESSING, COMPLETED = CampaignStatus
AT = "2026-01-01T00:00:00.000Z"


def test_every_transition_is_kept_with_time_reason_run_and_a_growing_token(runtime: Runtime) -> None:
    create(runtime)
    for to in (OPEN, CLOSED, PROCESSING, COMPLETED):
        done = advance(runtime, "summer", to, reason=f"to {to}", run_id=f"run-{to}")
        assert (done.status, done.changed) == (to, True)
    stored = runtime.campaigns.require_id("summer")
    assert stored.status is COMPLETED
    assert [(each.from_, each.to) for each in stored.transitions] == [
        (DRAFT, OPEN),
        (OPEN, CLOSED),
        (CLOSED, PROCESSING),
        (PROCESSING, COMPLETED),
    ]
    assert stored.transitions[1].reason == "to CLOSED" and stored.transitions[1].run_id == "run-CLOSED"
    tokens = [each.token for each in stored.transitions]
    assert tokens == sorted(set(tokens)) and stored.fence == tokens[-1]
    assert all(each.at for each in stored.transitions)


def test_a_repeat_changes_nothing_and_says_who_did_it(runtime: Runtime) -> None:
    create(runtime)
    first = advance(runtime, "summer", OPEN, reason="start", run_id="one")
    again = advance(runtime, "summer", OPEN, reason="start again", run_id="two")
    assert again == Advanced("summer", OPEN, False, first.at, "start", "one")
    assert len(runtime.campaigns.require_id("summer").transitions) == 1


@pytest.mark.parametrize(
    ("now", "to", "allowed"),
    [
        (DRAFT, CLOSED, "only OPEN can follow"),
        (OPEN, PROCESSING, "only CLOSED can follow"),
        (PROCESSING, CLOSED, "only COMPLETED can follow"),
        (COMPLETED, PROCESSING, "nothing follows"),
    ],
)
def test_backwards_and_over_a_step_is_refused_with_what_is_allowed(
    runtime: Runtime, now: CampaignStatus, to: CampaignStatus, allowed: str
) -> None:
    create(runtime)
    advance_to(runtime, "summer", now)
    with pytest.raises(UsageError, match=f"is {now} and cannot become {to}: {allowed}"):
        advance(runtime, "summer", to, reason="no", run_id="r")
    assert runtime.campaigns.require_id("summer").status is now


def test_of_several_at_once_one_makes_the_step_and_the_others_find_it_made(runtime: Runtime) -> None:
    create(runtime)
    start = threading.Barrier(4)

    def one(number: int) -> Advanced:
        start.wait(10)
        return advance(runtime, "summer", OPEN, reason="race", run_id=f"run-{number}")

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(one, range(4)))
    assert sorted(each.changed for each in done) == [False, False, False, True]
    assert len({each.run_id for each in done}) == 1
    assert len(runtime.campaigns.require_id("summer").transitions) == 1


def test_a_run_that_lost_its_lease_cannot_move_anything(runtime: Runtime) -> None:
    create(runtime)
    advance_to(runtime, "summer", CLOSED)
    stored = runtime.campaigns.require_id("summer")
    assert not runtime.campaigns.advance(
        "summer", CLOSED, PROCESSING, token=stored.fence - 1, at="", reason="late", run_id="old"
    )
    after = runtime.campaigns.require_id("summer")
    assert after.status is CLOSED and after == stored


def test_a_holder_that_died_is_waited_out_and_one_that_lives_is_not_pushed_aside(runtime: Runtime) -> None:
    create(runtime)
    living = LeaseHolder(runtime.leases, "living", lease_seconds=1.0).acquire("campaign-summer")
    assert living is not None
    slept: list[float] = []

    def beat(seconds: float) -> None:
        slept.append(seconds)
        threading.Event().wait(seconds)
        assert living.renew()

    with sleeping(beat), pytest.raises(TransientFailure, match="campaign-summer is being worked on"):
        advance(runtime, "summer", OPEN, reason="r", run_id="r")
    assert slept
    # From here on the lease is not renewed: its holder is dead.
    assert advance(runtime, "summer", OPEN, reason="r", run_id="r").changed


def test_a_write_whose_answer_got_lost_is_recognised_as_ones_own(runtime: Runtime) -> None:
    create(runtime)
    collection = runtime.database["campaigns"]

    class Deaf:
        """Writes, and answers for the repeat that the retry policy makes after a lost answer."""

        def __getattr__(self, name: str) -> Any:
            return getattr(collection, name)

        def update_one(self, guard: Any, update: Any) -> Any:
            collection.update_one(guard, update)
            return collection.update_one(guard, update)

    campaigns = Campaigns(Deaf(), runtime.dependency("mongo"))  # type: ignore[arg-type]
    moved = campaigns.advance("summer", DRAFT, OPEN, token=1, at=AT, reason="r", run_id="r")
    assert moved
    stored = runtime.campaigns.require_id("summer")
    assert stored.status is OPEN and len(stored.transitions) == 1
    again = campaigns.advance("summer", DRAFT, OPEN, token=2, at=AT, reason="r", run_id="other")
    assert not again


def test_who_writes_between_the_look_and_the_write_wins(runtime: Runtime) -> None:
    create(runtime)
    collection = runtime.database["campaigns"]

    class Crossed:
        """Another run moves the fence just before the write."""

        def __getattr__(self, name: str) -> Any:
            return getattr(collection, name)

        def update_one(self, guard: Any, update: Any) -> Any:
            collection.update_one({"_id": "summer"}, {"$set": {"fence": 9}})
            return collection.update_one(guard, update)

    campaigns = Campaigns(Crossed(), runtime.dependency("mongo"))  # type: ignore[arg-type]
    assert not campaigns.advance("summer", DRAFT, OPEN, token=1, at=AT, reason="r", run_id="r")
    stored = runtime.campaigns.require_id("summer")
    assert (stored.status, stored.fence) == (DRAFT, 9)


def test_a_recreated_lease_table_catches_up_with_the_stored_fence(runtime: Runtime) -> None:
    create(runtime, "restored")
    runtime.database["campaigns"].update_one({"_id": "restored"}, {"$set": {"fence": 4}})
    assert runtime.leases.get(LeaseHolder.key_of("campaign-restored")) is None
    assert advance(runtime, "restored", OPEN, reason="r", run_id="r").changed
    stored = runtime.campaigns.require_id("restored")
    assert stored.fence >= 4 and stored.status is OPEN


def test_only_an_open_campaign_that_says_autodraw_closes_when_its_time_has_passed(runtime: Runtime) -> None:
    past, future = "2026-02-01T00:00:00.000Z", "2999-01-01T00:00:00.000Z"
    for name, auto, closes in (
        ("due", True, past),
        ("by-hand", False, past),
        ("not-yet", True, future),
        ("draft", True, past),
    ):
        create(runtime, name, autoDraw=auto, closesAt=closes)
        if name != "draft":
            advance_to(runtime, name, OPEN)
    closed = {
        each.campaign_id: close_if_due(runtime, each.campaign_id, run_id="r")
        for each in runtime.campaigns.list()
    }
    assert closed == {"due": True, "by-hand": False, "not-yet": False, "draft": False}
    assert not close_if_due(runtime, "due", run_id="r")
    status = {each.campaign_id: each.status for each in runtime.campaigns.list()}
    assert status == {"due": CLOSED, "by-hand": OPEN, "not-yet": OPEN, "draft": DRAFT}


def test_one_campaign_that_breaks_the_contract_does_not_hide_the_others(runtime: Runtime) -> None:
    create(runtime)
    runtime.database["campaigns"].insert_one({"_id": "broken", "slug": "broken", "status": "OPEN"})
    assert [each.campaign_id for each in runtime.campaigns.list()] == ["summer"]
    with pytest.raises(UsageError, match="campaign broken: opensAt"):
        runtime.campaigns.get("broken")


def test_an_unknown_campaign_is_named_with_the_way_out(runtime: Runtime) -> None:
    with pytest.raises(UsageError, match=r"'unknown'.*campaign list"):
        advance(runtime, "unknown", OPEN, reason="r", run_id="r")
