"""A draw whose seed comes from the public beacon: the round is named before it exists, then waited for."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from fairdraw.errors import DrawError
from fairdraw.terms import QUICKNET_HASH
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.selection import QUICKNET
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.markets import explain
from regworkers_core.selection.status import read_campaign_status
from tests.fairdraw.proof.draws import ROUND, SIGNATURE
from tests.selection.draw.beacons import (
    START,
    Beacon,
    Clock,
    OwnBeacon,
    Waiting,
    committed_to_a_recorded_round,
    signature_of,
    taken_for_signatures,
    with_beacon,
)
from tests.selection.draw.world import CAMPAIGN, artefact, close_campaign, done_to, draw
from tests.support.draws import record_of

pytestmark = pytest.mark.namespace("module")


@pytest.fixture
def committed(runtime: Runtime) -> Runtime:
    return committed_to_a_recorded_round(runtime)


def test_the_manifest_names_a_round_ten_minutes_or_more_after_the_commit(committed: Runtime) -> None:
    source = orjson.loads(artefact(committed, "manifest.json"))["seedSource"]
    assert source == {"chain": QUICKNET_HASH, "kind": "drand", "round": ROUND}
    assert QUICKNET.due(ROUND) - committed.clock() >= 600


def test_a_late_beacon_is_asked_again_for_the_same_round(committed: Runtime) -> None:
    beacon = Beacon(SIGNATURE, late=1)
    committed.__dict__["beacon"] = beacon
    assert draw(committed).seed().state == "done"
    assert set(beacon.asked[1:]) == {ROUND}
    seed = orjson.loads(artefact(committed, "seed.json"))
    assert (seed["kind"], seed["round"], seed["signature"]) == ("drand", ROUND, SIGNATURE)


WRONG = SIGNATURE[:-1] + ("0" if SIGNATURE[-1] != "0" else "1")


def test_a_signature_that_is_not_the_chains_makes_no_seed(committed: Runtime) -> None:
    committed.__dict__["beacon"] = Beacon(WRONG)
    with pytest.raises(TransientFailure):
        draw(committed, patience_seconds=1.0).seed()
    assert not committed.objects.exists(f"draws/{CAMPAIGN}/phase-1/seed.json")


def test_a_signature_that_was_forged_in_the_record_makes_no_seed(committed: Runtime) -> None:
    forged = {"phases.1.signatures": {str(ROUND): WRONG}}
    committed.database["draws"].update_one({"_id": CAMPAIGN}, {"$set": forged})
    with pytest.raises(DrawError, match="not a point of"):
        draw(committed).seed()
    assert not committed.objects.exists(f"draws/{CAMPAIGN}/phase-1/seed.json")


def test_a_signature_that_was_brought_by_hand_is_verified_and_makes_the_seed(committed: Runtime) -> None:
    committed.__dict__["beacon"] = Beacon(WRONG)
    with pytest.raises(UsageError, match=rf"not a point of .*; it must be that of round {ROUND}"):
        draw(committed).take_signature(WRONG)
    with pytest.raises(UsageError, match="not 96 lower-case hex digits"):
        draw(committed).take_signature(SIGNATURE.upper())
    draw(committed).take_signature(SIGNATURE)
    assert draw(committed, patience_seconds=1.0).seed().facts["signature"] == SIGNATURE
    with pytest.raises(UsageError, match="has its seed already"):
        draw(committed).take_signature(SIGNATURE)


def test_a_run_that_is_stopped_while_it_waits_says_so_and_the_next_one_goes_on(committed: Runtime) -> None:
    beacon = Beacon(SIGNATURE, late=10**6)
    committed.__dict__["beacon"] = beacon
    stop = StopSignal()
    stop.set()
    assert draw(committed, stop=stop).seed().state == "awaiting"
    assert beacon.asked[1:] == []
    committed.__dict__["beacon"] = Beacon(SIGNATURE)
    assert draw(committed).seed().state == "done"


def test_a_run_without_patience_ends_as_waiting_and_the_next_one_goes_on(committed: Runtime) -> None:
    beacon = Beacon(SIGNATURE, late=1, seconds=600.0)
    committed.__dict__["beacon"] = beacon
    *_, step = draw(committed, patience_seconds=60.0).steps()
    assert (step.name, step.state) == ("seed", "waiting")
    record = record_of(committed)
    assert record.latest.round_due == QUICKNET.due(ROUND)
    # Who waits sees what has been committed to.
    assert step.facts["dueAt"] == iso(QUICKNET.due(ROUND))
    assert step.facts["manifestHash"] == record.latest.manifest_hash
    assert beacon.asked[1:] == [ROUND], "it left at once"
    campaign = committed.campaigns.require_id(CAMPAIGN)
    found = [each.text for each in read_campaign_status(committed, campaign).findings]
    assert not [text for text in found if "no run works on it" in text], "nothing is to be done"
    assert (
        explain(committed, campaign).step == f"seed: round {ROUND} of the beacon, due {step.facts['dueAt']}"
    )
    assert [step.state for step in draw(committed, patience_seconds=60.0).steps()][3:5] == ["done", "done"]
    assert record_of(committed).latest.round_due is None


def test_a_beacon_that_is_late_is_waited_for_as_long_as_patience_lasts(committed: Runtime) -> None:
    beacon = Beacon(SIGNATURE, late=10**6)
    committed.__dict__["beacon"] = beacon
    assert draw(committed, patience_seconds=1.2).seed().state == "waiting"
    assert len(beacon.asked[1:]) == 3


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def own(runtime: Runtime, clock: Clock) -> Iterator[Runtime]:
    """A closed campaign with a beacon on a clock that only the test moves."""
    close_campaign(runtime)
    with taken_for_signatures():
        yield with_beacon(runtime.names.prefix, clock)


def test_a_terminal_counts_down_the_seconds_to_the_round(own: Runtime, clock: Clock) -> None:
    shown: list[str] = []
    stop = Waiting(clock)
    *_, last = draw(own, stop=stop, tell=shown.append).steps()
    assert last.name == "publish"
    texts = [text for text in shown if text.startswith("round ")]
    assert texts[0].endswith("is due in 11 min 0 s") and texts[1].endswith("is due in 10 min 59 s")
    assert 650 <= len(texts) <= 662


def test_an_outage_of_the_beacon_for_hours_costs_only_time(own: Runtime, clock: Clock) -> None:
    own.beacon.down = True  # type: ignore[attr-defined]
    shown: list[str] = []

    class Back(Waiting):
        def wait(self, seconds: float) -> bool:
            own.beacon.down = self._clock.at < START + 5 * 3600  # type: ignore[attr-defined]
            return super().wait(seconds)

    run = draw(own, stop=Back(clock), tell=shown.append)
    for step in (run.judge, run.freeze, run.commit):
        assert step().state == "done"
    assert clock.at >= START + 5 * 3600 and "does not answer" in shown[-1]
    own.beacon.down = True  # type: ignore[attr-defined]
    with pytest.raises(TransientFailure):
        # Where runs take turns, this one fails and another one comes.
        clock.at += 700
        draw(own, stop=Waiting(clock), patience_seconds=60.0).seed()
    own.beacon.down = False  # type: ignore[attr-defined]
    assert draw(own).seed().state == "done"


def test_a_run_that_waits_for_the_beacon_holds_no_lease_and_continues_with_a_supplied_signature(
    own: Runtime, clock: Clock
) -> None:
    done_to("commit", draw(own))
    clock.at += 700
    own.beacon.down = True  # type: ignore[attr-defined]
    record = record_of(own)
    assert record.latest.awaited_round is not None
    right = signature_of(record.latest.awaited_round)

    class Brought(Waiting):
        def wait(self, seconds: float) -> bool:
            if not self.pauses:
                # As `draw seed` does, from another terminal.
                draw(own).take_signature(right)
            return super().wait(seconds)

    stop = Brought(clock)
    assert draw(own, stop=stop).seed().facts["signature"] == right
    assert len(stop.pauses) == 1


def test_nothing_is_committed_to_while_the_beacon_cannot_say_which_round_it_has_signed(own: Runtime) -> None:
    own.beacon.down = True  # type: ignore[attr-defined]
    run = done_to("freeze", draw(own, patience_seconds=1.0))
    with pytest.raises(TransientFailure):
        run.commit()
    assert not record_of(own).latest.manifest_hash


def test_a_clock_that_is_behind_the_beacon_commits_to_nothing(own: Runtime, clock: Clock) -> None:
    own.__dict__["beacon"] = OwnBeacon(clock, ahead_seconds=1200.0)
    run = done_to("freeze", draw(own))
    with pytest.raises(UsageError, match=r"clock is (20 min 0|19 min 5\d) s behind the beacon"):
        run.commit()
    assert not record_of(own).latest.manifest_hash


def test_a_clock_that_is_seconds_behind_commits_to_a_round_by_the_beacons_time(
    own: Runtime, clock: Clock
) -> None:
    own.__dict__["beacon"] = OwnBeacon(clock, ahead_seconds=10.0)
    done_to("commit", draw(own))
    record = record_of(own)
    assert record.latest.round_due is not None
    assert record.latest.round_due >= clock.at + 7 + 660


def test_a_draw_that_was_judged_by_a_clock_an_hour_ahead_names_a_round_that_its_replay_takes(
    own: Runtime, clock: Clock
) -> None:
    clock.at += 3600
    draw(own).judge()
    clock.at -= 3600
    run = draw(own)
    run.freeze()
    run.commit()
    record = record_of(own)
    assert record.latest.round_due is not None
    clock.at = record.latest.round_due + 1
    *_, published = draw(own).steps(unasked=True)
    assert (published.name, published.state) == ("publish", "done")
