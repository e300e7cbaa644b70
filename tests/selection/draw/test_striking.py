"""Strikes that a manager hands in before the draw."""

from __future__ import annotations

import pytest

from regworkers_core.adapters.mongo.draws import lease_name
from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_core.domain.selection import DrawBusy
from regworkers_core.engine.leases import held_lease
from regworkers_core.runtime import Runtime
from regworkers_core.selection.drains import SELECTIONS
from regworkers_core.selection.draw import terms
from regworkers_core.selection.draw.changes import Striking, open_phase
from regworkers_core.selection.draw.terms import TopUp
from regworkers_core.selection.status import read_campaign_status
from tests.selection.draw.world import CAMPAIGN, artefact, close_campaign, done_to, draw, drawn, ref_of
from tests.support.drains import run
from tests.support.draws import record_of

pytestmark = pytest.mark.namespace("module")

BOT, CHEAT = (ref_of(1), "BOT"), (ref_of(2), "CHEAT")


@pytest.fixture
def runtime(runtime: Runtime) -> Runtime:
    close_campaign(runtime)
    return runtime


def strike(runtime: Runtime, *strikes: tuple[str, str], dry_run: bool = False) -> dict[str, int]:
    return Striking(runtime, CAMPAIGN, run_id="manager").strike(strikes, dry_run=dry_run)


def test_who_is_struck_before_the_draw_takes_no_place_in_it_and_a_later_list_replaces_the_earlier(
    runtime: Runtime,
) -> None:
    assert strike(runtime, BOT, dry_run=True) == {"strikes": 1, "before": 0}
    assert runtime.draws.get(CAMPAIGN) is None, "a dry run keeps nothing"
    assert strike(runtime, BOT) == {"strikes": 1, "before": 0}
    assert strike(runtime, CHEAT) == {"strikes": 1, "before": 1}
    drawn(runtime)
    assert artefact(runtime, "strikes.txt").decode() == f"{CHEAT[0]}|CHEAT\n"
    (line,) = [each for each in artefact(runtime, "result.txt").decode().splitlines() if CHEAT[0] in each]
    assert line.endswith("|STRUCK")


def test_the_status_of_a_campaign_that_has_nothing_but_strikes_asks_for_no_draw(runtime: Runtime) -> None:
    strike(runtime, BOT)
    runtime.database["campaigns"].update_one(
        {"_id": CAMPAIGN}, {"$set": {"status": CampaignStatus.OPEN.value}}
    )
    report = read_campaign_status(runtime, runtime.campaigns.require(CAMPAIGN))
    assert [finding.job for finding in report.findings] == ["close_campaign"]


def test_once_it_is_committed_only_the_same_strikes_are_fine(runtime: Runtime) -> None:
    strike(runtime, BOT)
    done_to("commit", draw(runtime))
    assert strike(runtime, BOT)["before"] == 1
    with pytest.raises(UsageError, match="committed without these strikes"):
        strike(runtime, CHEAT)


def test_while_a_run_works_on_the_draw_nothing_is_struck(runtime: Runtime) -> None:
    with (
        held_lease(runtime.leases, lease_name(CAMPAIGN), "other", lease_seconds=1.0),
        pytest.raises(DrawBusy),
    ):
        strike(runtime, BOT)
    with pytest.raises(RequestError, match="struck for BOT already"):
        strike(runtime, BOT, (BOT[0], "CHEAT"))


def test_a_ref_that_is_not_in_the_pool_is_refused_before_anything_is_committed(runtime: Runtime) -> None:
    strike(runtime, BOT, ("mistyped", "BOT"))
    run = done_to("freeze", draw(runtime))
    with pytest.raises(RequestError, match=r"first mistyped: .*submit the strikes again"):
        run.commit()
    strike(runtime, BOT)
    run.commit()


def test_more_strikes_than_a_draw_keeps_are_refused_before_anything_is_decided(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Room for one in a phase, and for those of two phases together if they have one each.
    monkeypatch.setattr(terms, "MAX_STRIKES_BYTES", 130)
    for dry_run in (True, False):
        with pytest.raises(RequestError, match="2 strikes are too many for one draw: it keeps at most 1 "):
            strike(runtime, BOT, CHEAT, dry_run=dry_run)
    with pytest.raises(RequestError, match="2 strikes are too many"):
        draw(runtime, strikes=(BOT, CHEAT)).judge()
    assert runtime.draws.get(CAMPAIGN) is None
    assert runtime.campaigns.require(CAMPAIGN).status is CampaignStatus.CLOSED
    strike(runtime, BOT)
    drawn(runtime)
    run(runtime, SELECTIONS)
    more = TopUp(capacities={}, reserves={}, strikes=(CHEAT,), reason="a cheat")
    with pytest.raises(
        RequestError, match=r"2 strikes are too many .* in addition to those of the phases before"
    ):
        open_phase(runtime, CAMPAIGN, more, run_id="more")
    assert list(record_of(runtime).phases) == [1]
