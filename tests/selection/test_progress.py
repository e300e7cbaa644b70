"""How far a campaign has come, as a page tells it: the sentence, the steps, what waits, what can be done."""

from __future__ import annotations

from typing import Any

import pytest

from regworkers_core.acts import operation_of
from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.runtime import Runtime
from regworkers_core.selection import progress
from regworkers_core.selection.progress import Progress, acts_of, read_progress
from tests.selection.draw.world import CAMPAIGN, close_campaign, draw

pytestmark = pytest.mark.namespace("module")


def read(runtime: Runtime, *, at_work: bool = False) -> Progress:
    return read_progress(runtime, runtime.campaigns.require(CAMPAIGN), at_work=lambda: at_work)


def put(runtime: Runtime, **fields: Any) -> None:
    runtime.database["campaigns"].update_one({"_id": CAMPAIGN}, {"$set": fields})


@pytest.mark.parametrize(
    ("status", "closes", "sentence", "first"),
    [
        ("DRAFT", "2099-02-01T00:00:00.000Z", "It is a draft: no fan sees it.", "campaign open"),
        (
            "OPEN",
            "2099-02-01T00:00:00.000Z",
            "Fans register until 2099-02-01 00:00:00 UTC.",
            "campaign close",
        ),
        ("OPEN", "2026-02-01T00:00:00.000Z", "Its registration ended at 2026-02-01", "campaign close"),
        ("CLOSED", "2026-02-01T00:00:00.000Z", "and it is not drawn yet.", "draw run"),
        ("PROCESSING", "2026-02-01T00:00:00.000Z", "Its draw begins.", "draw run"),
    ],
)
def test_before_its_draw_the_next_act_follows_from_the_status(
    runtime: Runtime, status: str, closes: str, sentence: str, first: str
) -> None:
    close_campaign(runtime, entries=(), codes=3, status=status, closesAt=closes)
    found = read(runtime)
    assert sentence in found.sentence and found.acts[0] == first
    steps = {each.name: each for each in found.steps}
    assert not steps["Import codes"].done and steps["Import codes"].text == "6 codes; 1 are missing"
    assert not steps["Draw"].done and "Upload invites" not in steps and "invites upload" not in found.acts
    put(runtime, eligibility={"inviteOnly": True})
    found = read(runtime)
    assert "Upload invites" in [each.name for each in found.steps]
    assert ("invites upload" in found.acts) == (status in ("DRAFT", "OPEN"))


def test_a_draw_waits_for_its_confirmation_whose_word_its_form_shows(runtime: Runtime) -> None:
    close_campaign(runtime)
    taken = draw(runtime).steps(None)
    next(taken)
    assert read(runtime, at_work=True).waits == [] and read(runtime).acts[0] == "draw run"
    [*_, last] = taken
    found = read(runtime)
    assert last.name == "publish" and "a person has to confirm it" in found.sentence
    assert found.acts[0] == "draw confirm" and found.reports == [1]
    (wait,) = found.waits
    assert (wait.job, wait.given) == ("confirm_draw", {"confirm": f"{CAMPAIGN}:1"})
    draw(runtime).publish(f"{CAMPAIGN}:1")
    found = read(runtime)
    assert found.sentence == "Phase 1 is confirmed: its codes are being assigned."
    steps = {each.name: each for each in found.steps}
    assert steps["Confirm"].done and steps["Confirm"].at and "winners" in steps["Draw"].text
    assert "draw receipt" in found.acts and "draw confirm" not in found.acts
    runtime.database["draws"].update_one(
        {"_id": CAMPAIGN},
        {
            "$set": {
                "annulled": {"annulledAt": "2026-03-01T00:00:00.000Z", "reason": "a wrong list", "by": "ada"}
            }
        },
    )
    found = read(runtime)
    assert "annulled: a wrong list" in found.sentence and "codes block" in found.acts
    assert not {"draw top-up", "draw annul", "notifications retry"} & {*found.acts}


def test_no_page_about_a_campaign_counts_entries_or_messages(runtime: Runtime) -> None:
    close_campaign(runtime)
    [*_] = draw(runtime).steps(None)
    fresh = Runtime(runtime.settings)
    read(fresh)
    assert not {"replica", "outbox", "registrations", "leases"} & vars(fresh).keys()


def test_every_act_that_a_state_allows_is_an_operation_with_a_job(runtime: Runtime) -> None:
    close_campaign(runtime, entries=(), eligibility={"inviteOnly": True})
    named = {*progress._RELEASED, "draw confirm", "draw seed", "draw top-up"}
    for status in CampaignStatus:
        put(runtime, status=status.value)
        named |= {*acts_of(runtime.campaigns.require(CAMPAIGN), None)}
    for command in named:
        assert operation_of(command).job and operation_of(command).role == "manager"
