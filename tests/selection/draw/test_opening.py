"""Around the judgement: strikes, writers still at work, runs that die or come too late, and what another system did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from regworkers_core.adapters.mongo.draws import lease_name
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import seconds
from regworkers_core.engine.leases import LeaseHolder
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.selection.drains import SELECTIONS
from regworkers_core.selection.draw.changes import open_phase
from regworkers_core.selection.draw.freezing import await_writers
from regworkers_core.selection.draw.terms import PhaseTerms, TopUp
from tests.eligibility.campaign.world import CLOSES, closed
from tests.selection.draw.world import CAMPAIGN, artefact, close_campaign, draw, drawn, ref_of
from tests.support.drains import run
from tests.support.draws import record_of

pytestmark = pytest.mark.slow

STRIKE = ((ref_of(3), "FRAUD"),)
CLOSED_AT = seconds(CLOSES) or 0.0


@pytest.fixture
def closed_campaign(runtime: Runtime) -> Runtime:
    close_campaign(runtime)
    return runtime


def strikes_of(runtime: Runtime) -> tuple[tuple[str, str], ...]:
    return PhaseTerms.parse(record_of(runtime).phases[1].fields["terms"]).strikes


def test_strikes_that_come_after_the_commit_are_refused_and_never_dropped(closed_campaign: Runtime) -> None:
    list(draw(closed_campaign).steps())
    with pytest.raises(UsageError, match="draw top-up summer --strikes"):
        list(draw(closed_campaign, strikes=STRIKE).steps(f"{CAMPAIGN}:1"))
    assert "confirmedAt" not in record_of(closed_campaign).latest.fields


@pytest.mark.parametrize("steps", [1, 2])
def test_strikes_that_come_before_the_commit_count(closed_campaign: Runtime, steps: int) -> None:
    begun = draw(closed_campaign).steps()
    for _ in range(steps):
        next(begun)
    drawn(closed_campaign, strikes=STRIKE)
    assert record_of(closed_campaign).latest.outcomes["STRUCK"] == 1


def test_a_run_that_knows_of_no_strikes_keeps_those_of_the_one_before(closed_campaign: Runtime) -> None:
    draw(closed_campaign, strikes=STRIKE).judge()
    draw(closed_campaign).judge()
    assert strikes_of(closed_campaign) == STRIKE
    drawn(closed_campaign)
    list(draw(closed_campaign, strikes=STRIKE).steps(f"{CAMPAIGN}:1"))
    assert strikes_of(closed_campaign) == STRIKE


def test_a_draw_that_was_left_without_a_phase_goes_on(closed_campaign: Runtime) -> None:
    closed_campaign.database["draws"].insert_one(
        {"_id": CAMPAIGN, "campaignId": CAMPAIGN, "drawId": CAMPAIGN, "token": 0, "phases": {}}
    )
    assert drawn(closed_campaign)["publish"].state == "done"


def test_a_freeze_keeps_the_judgement_that_it_was_made_from(closed_campaign: Runtime) -> None:
    """A judge that lost its lease in its sleep wakes up while another run freezes."""
    late = {"eligibility": {"prefix": "judged-late"}, "asOf": "2026-03-01T00:00:00.000Z"}

    def wake_up(step: str) -> None:
        if step == "draw.after_freeze":
            closed_campaign.database["draws"].update_one(
                {"_id": CAMPAIGN}, {"$set": {f"phases.1.{name}": value for name, value in late.items()}}
            )

    run = draw(closed_campaign, on_step=wake_up)
    judged = run.judge().facts
    run.freeze()
    record = record_of(closed_campaign)
    assert record.phases[1].eligibility["prefix"] == judged["prefix"]
    assert record.phases[1].as_of != late["asOf"]


def test_a_word_for_the_draw_does_not_confirm_a_top_up(closed_campaign: Runtime) -> None:
    drawn(closed_campaign)
    record = record_of(closed_campaign)
    closed_campaign.draws.decide(CAMPAIGN, 1, {"status": "COMPLETED"}, token=record.token)
    more = TopUp({"berlin": 6}, {}, (), "a second evening")
    open_phase(closed_campaign, CAMPAIGN, more, run_id="top-up")
    run = draw(closed_campaign)
    *_, awaiting = run.steps()
    assert awaiting.facts["confirm"] == f"{CAMPAIGN}:2"
    with pytest.raises(UsageError, match="summer:2"):
        run.publish(CAMPAIGN)
    assert run.publish(f"{CAMPAIGN}:2").state == "done"


def test_a_top_up_with_a_mistake_takes_other_terms_until_it_is_committed(closed_campaign: Runtime) -> None:
    drawn(closed_campaign)
    record = record_of(closed_campaign)
    closed_campaign.draws.decide(CAMPAIGN, 1, {"status": "COMPLETED"}, token=record.token)

    def ask(berlin: int) -> int:
        more = TopUp({"berlin": berlin}, {}, (), "a second evening")
        return open_phase(closed_campaign, CAMPAIGN, more, run_id="top-up")

    assert (ask(60), ask(6)) == (2, 2)
    draw(closed_campaign).commit()
    assert b'"capacity":6,' in artefact(closed_campaign, "manifest.json", 2)
    with pytest.raises(UsageError, match="a top-up waits until it is COMPLETED"):
        ask(7)
    assert ask(6) == 2


def test_nothing_is_judged_while_entries_from_before_the_closing_may_be_written(
    closed_campaign: Runtime,
) -> None:
    selection = closed_campaign.settings.selection.model_copy(update={"write_grace_seconds": 60.0})
    settings = closed_campaign.settings.model_copy(update={"selection": selection})
    soon = Runtime(settings, clock=lambda: CLOSED_AT + 10)
    stop = StopSignal()
    stop.set()
    assert draw(soon, stop=stop).judge().state == "awaiting"
    assert soon.draws.get(CAMPAIGN) is None
    soon.mongo.close()


def waits(now: float, *, cut_short: bool = False) -> tuple[bool, float]:
    """Whether it waited to the end, and until when."""
    moment = [now]

    def wait(asked: float) -> bool:
        moment[0] += asked
        return cut_short

    done = await_writers(closed(), 60.0, clock=lambda: moment[0], wait=wait, tell=lambda _text: None)
    return done, moment[0]


def test_entries_under_way_at_the_closing_are_waited_for() -> None:
    assert waits(CLOSED_AT + 10) == (True, CLOSED_AT + 60)


def test_long_after_the_closing_a_draw_does_not_wait() -> None:
    assert waits(CLOSED_AT + 60) == (True, CLOSED_AT + 60)


def test_a_stop_signal_ends_the_waiting() -> None:
    done, until = waits(CLOSED_AT, cut_short=True)
    assert not done and until < CLOSED_AT + 60


def test_a_campaign_that_closed_before_its_time_and_does_not_say_when_closed_just_now() -> None:
    assert waits(CLOSED_AT - 86_400) == (True, CLOSED_AT - 86_400 + 60)


def test_a_closing_by_hand_is_the_one_that_counts() -> None:
    early = {
        "from": "OPEN",
        "to": "CLOSED",
        "at": "2026-01-15T00:00:00.000Z",
        "reason": "sold out",
        "runId": "r",
        "token": 1,
    }
    asked: list[float] = []
    await_writers(
        closed(transitions=[early]),
        60.0,
        clock=lambda: (seconds(early["at"]) or 0.0) + 61,
        wait=lambda seconds_: bool(asked.append(seconds_)),
        tell=lambda _text: None,
    )
    assert asked == []


def top_up(runtime: Runtime, on_open: Callable[[], object]) -> int:
    """Opens phase 2; `on_open` comes between the look at the draw and the write."""
    before = runtime.draws.open

    def late(*arguments: Any, **options: Any) -> None:
        on_open()
        before(*arguments, **options)

    runtime.draws.open = late  # type: ignore[method-assign]
    more = TopUp(capacities={"berlin": 6}, reserves={}, strikes=(), reason="a larger hall")
    return open_phase(runtime, CAMPAIGN, more, run_id="more")


@pytest.fixture
def completed(runtime: Runtime) -> Runtime:
    """A draw whose first phase is complete."""
    close_campaign(runtime)
    drawn(runtime)
    run(runtime, SELECTIONS)
    return runtime


def test_a_top_up_says_that_the_lease_table_is_behind_the_draw(completed: Runtime) -> None:
    # As after the table was recreated: no other run is active, and the token is too old.
    completed.database["draws"].update_one({"_id": CAMPAIGN}, {"$set": {"token": 1000}})
    with pytest.raises(UsageError, match=r"under token 1000, .* is only at \d+: was another table restored"):
        top_up(completed, lambda: None)
    completed.database["draws"].update_one({"_id": CAMPAIGN}, {"$set": {"token": 0}})
    assert top_up(completed, lambda: None) == 2


def test_a_top_up_that_another_run_overtook_says_so(completed: Runtime) -> None:
    key = LeaseHolder.key_of(lease_name(CAMPAIGN))

    def overtake() -> None:
        row = completed.leases.get(key)
        assert row is not None
        completed.leases.release(key, row.owner, row.token)
        lease = LeaseHolder(completed.leases, "other", lease_seconds=60.0).acquire(lease_name(CAMPAIGN))
        assert lease is not None
        completed.draws.decide(CAMPAIGN, 1, {"note": "further on"}, token=lease.token)

    with pytest.raises(UsageError, match="another run works on the draw"):
        top_up(completed, overtake)
