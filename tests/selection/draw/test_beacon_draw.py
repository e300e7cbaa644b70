"""A draw whose seed comes from the public beacon: the round is named before it exists, then waited for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
import pytest

from regworkers_core.adapters.drand import RoundNotYet
from regworkers_core.domain.beacon import QUICKNET, QUICKNET_HASH
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.explaining import explain
from regworkers_core.selection.campaigns.status import read_campaign_status
from regworkers_core.selection.draw.run import DrawRun
from tests.selection.draw.world import CAMPAIGN, artefact, close_campaign, everybody
from tests.selection.proof.rounds import ROUND, SIGNATURE
from tests.support.runtimes import test_settings


class Beacon:
    """Answers with a recorded signature, after `late` askings too early."""

    def __init__(self, signature: str, late: int = 0, seconds: float = 0.0) -> None:
        self.signature_hex, self.late, self.seconds, self.asked = signature, late, seconds, [0]

    def signature(self, round_number: int, *, accept: Callable[[str], bool] | None = None) -> str:
        self.asked.append(round_number)
        if self.late:
            self.late -= 1
            raise RoundNotYet(round_number, self.seconds)
        if accept is not None and not accept(self.signature_hex):
            raise TransientFailure("drand", "no base has a fitting answer")
        return self.signature_hex


@pytest.fixture
def committed(runtime: Runtime) -> Runtime:
    """Committed 660 s before the recorded round: ten minutes, and room for the write."""
    close_campaign(runtime)
    at = float(QUICKNET.due(ROUND) - 660)
    settings = test_settings(runtime.names.prefix, selection={"seed_source": "drand"})
    early = Runtime(settings, clock=lambda: at)
    run = _draw(early)
    run.judge()
    run.freeze()
    run.commit()
    return early


def test_the_manifest_names_a_round_ten_minutes_or_more_after_the_commit(committed: Runtime) -> None:
    source = orjson.loads(artefact(committed, "manifest.json"))["seedSource"]
    assert source == {"chain": QUICKNET_HASH, "kind": "drand", "round": ROUND}
    assert QUICKNET.due(ROUND) - committed.clock() >= 600


def test_a_late_beacon_is_asked_again_for_the_same_round(committed: Runtime) -> None:
    beacon = Beacon(SIGNATURE, late=1)
    committed.__dict__["beacon"] = beacon
    assert _draw(committed).seed().state == "done"
    assert set(beacon.asked[1:]) == {ROUND}
    seed = orjson.loads(artefact(committed, "seed.json"))
    assert (seed["kind"], seed["round"], seed["signature"]) == ("drand", ROUND, SIGNATURE)


def test_a_signature_that_is_not_the_chains_makes_no_seed(committed: Runtime) -> None:
    wrong = SIGNATURE[:-1] + ("0" if SIGNATURE[-1] != "0" else "1")
    committed.__dict__["beacon"] = Beacon(wrong)
    with pytest.raises(TransientFailure):
        _draw(committed).seed()
    assert not committed.objects.exists(f"draws/{CAMPAIGN}/phase-1/seed.json")


def test_a_run_that_is_stopped_while_it_waits_says_so_and_the_next_one_goes_on(committed: Runtime) -> None:
    committed.__dict__["beacon"] = Beacon(SIGNATURE, late=10**6)
    stop = StopSignal()
    stop.set()
    assert _draw(committed, stop).seed().state == "awaiting"
    committed.__dict__["beacon"] = Beacon(SIGNATURE)
    assert _draw(committed).seed().state == "done"


def test_a_run_without_patience_ends_as_waiting_and_the_next_one_goes_on(committed: Runtime) -> None:
    beacon = Beacon(SIGNATURE, late=1, seconds=600.0)
    committed.__dict__["beacon"] = beacon
    *_, step = _draw(committed, patience_seconds=60.0).steps()
    assert (step.name, step.state) == ("seed", "waiting")
    assert step.facts["dueAt"] == iso(QUICKNET.due(ROUND))
    assert beacon.asked[1:] == [ROUND], "it left at once"
    record = committed.draws.get(CAMPAIGN)
    assert record is not None and record.latest.round_due == QUICKNET.due(ROUND)
    campaign = committed.campaigns.get(CAMPAIGN)
    assert campaign is not None
    found = [each.text for each in read_campaign_status(committed, campaign).findings]
    assert not [text for text in found if "no run works on it" in text], "nothing is to be done"
    assert (
        explain(committed, campaign).step == f"seed: round {ROUND} of the beacon, due {step.facts['dueAt']}"
    )
    assert [step.state for step in _draw(committed, patience_seconds=60.0).steps()][3:5] == ["done", "done"]
    record = committed.draws.get(CAMPAIGN)
    assert record is not None and record.latest.round_due is None


def test_a_beacon_that_is_late_is_waited_for_as_long_as_patience_lasts(committed: Runtime) -> None:
    beacon = Beacon(SIGNATURE, late=10**6)
    committed.__dict__["beacon"] = beacon
    assert _draw(committed, patience_seconds=1.2).seed().state == "waiting"
    assert len(beacon.asked[1:]) == 3


def _draw(runtime: Runtime, stop: StopSignal | None = None, **options: Any) -> DrawRun:
    return DrawRun(
        runtime,
        CAMPAIGN,
        run_id="test-run",
        settled=lambda _campaign: (),
        judge=partial(everybody, runtime),
        stop=stop,
        **options,
    )
