"""A draw that was frozen under rules that are gone: it can be annulled, nothing else, and stops no other campaign."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regworkers_core.domain.reasons import RequestError
from regworkers_core.operations.health.snapshot import read_campaigns
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.markets import stalled_markets
from regworkers_core.selection.assign.release import resume_blocked
from regworkers_core.selection.draw.changes import annul
from regworkers_core.selection.status import read_campaign_status
from tests.operations.alerts.world import WELL, found
from tests.selection.draw.world import CAMPAIGN, close_campaign, done_to, draw, ref_of
from tests.support.draws import record_of
from tests.support.faces import Face

pytestmark = pytest.mark.namespace("module")

SENTENCE = f"the draw of {CAMPAIGN} was frozen under the rules vf1, which are gone"


def former(runtime: Runtime, **fields: Any) -> None:
    """The draw, as a release wrote it that knew other rules: its terms name none."""
    values = {f"phases.1.{name}": value for name, value in fields.items()}
    change = {"$unset": {"phases.1.terms.algorithm": ""}} | ({"$set": values} if values else {})
    runtime.database["draws"].update_one({"_id": CAMPAIGN}, change)


@pytest.fixture
def drawn_before(runtime: Runtime) -> Runtime:
    close_campaign(runtime)
    done_to("freeze", draw(runtime))
    former(runtime)
    return runtime


def test_every_act_on_it_is_refused_by_one_sentence_that_names_the_way_out(
    drawn_before: Runtime, face: Face, tmp_path: Path
) -> None:
    file = tmp_path / "bots.txt"
    file.write_text(f"{ref_of(1)}|BOT\n")
    campaign = {"campaign_id": CAMPAIGN}
    acts: list[tuple[str, dict[str, Any]]] = [
        ("draw strike", {**campaign, "upload": file, "apply": True}),
        ("draw seed", {**campaign, "signature": "ab" * 48}),
        ("draw confirm", {"confirm": f"{CAMPAIGN}:1"}),
        ("draw retry", {**campaign, "market_id": "berlin"}),
        ("draw top-up", {**campaign, "capacities": {"paris": 5}, "reason": "a hall"}),
    ]
    if face.name == "terminal":
        acts.append(("draw run", {**campaign, "yes": True}))
    before = drawn_before.database["draws"].find_one()
    for command, given in acts:
        done = face.does(command, **given)
        assert not done.fine, command
        assert SENTENCE in " ".join(done.text.split()), (command, done.text)
        assert f"regworkers draw annul {CAMPAIGN}" in done.text and "`annul_draw`" in done.text
    after = drawn_before.database["draws"].find_one()
    assert after is not None and before is not None
    assert {**after, "token": 0} == {**before, "token": 0}, "nothing was decided"


@pytest.mark.parametrize("step", ["judge", "freeze", "commit", "seed", "rank", "allocate", "report"])
def test_no_step_of_the_job_goes_on_with_it(drawn_before: Runtime, step: str) -> None:
    with pytest.raises(RequestError, match=SENTENCE):
        getattr(draw(drawn_before), step)()


def test_it_can_be_annulled_and_is_named_until_then(drawn_before: Runtime) -> None:
    (state,) = read_campaigns(drawn_before)
    ((subject, severity, line),) = found("draw-input-differs", replace(WELL, campaigns=(state,)))
    assert (subject, severity) == (CAMPAIGN, "critical") and SENTENCE in line
    campaign = drawn_before.campaigns.require(CAMPAIGN)
    (finding,) = read_campaign_status(drawn_before, campaign).findings
    assert SENTENCE in finding.text and finding.job == "annul_draw"
    annul(drawn_before, CAMPAIGN, reason="other rules", confirm=f"{CAMPAIGN}:1", run_id="r")
    assert record_of(drawn_before).annulled
    assert not any(each.stopped for each in read_campaigns(drawn_before))
    with pytest.raises(RequestError, match="never drawn again"):
        draw(drawn_before).judge()


def test_no_market_of_it_is_resumed(runtime: Runtime) -> None:
    close_campaign(runtime, codes=0)
    list(draw(runtime).steps(f"{CAMPAIGN}:1"))
    assert {each["status"] for each in record_of(runtime).latest.markets.values()} >= {"BLOCKED"}
    runtime.database["codes"].insert_many(
        {
            "_id": f"{market}-{position}",
            "campaignId": CAMPAIGN,
            "marketId": market,
            "position": position,
            "status": "AVAILABLE",
        }
        for market in ("berlin", "paris")
        for position in range(1, 11)
    )
    assert stalled_markets(runtime, older_than_seconds=-60)
    former(runtime)
    assert not stalled_markets(runtime, older_than_seconds=-60) and resume_blocked(runtime, CAMPAIGN) == {}
    assert not record_of(runtime).unjudged


def test_a_draw_whose_pool_is_not_frozen_takes_the_rules_of_now(runtime: Runtime) -> None:
    close_campaign(runtime)
    done_to("judge", draw(runtime))
    former(runtime)
    done_to("freeze", draw(runtime))
    assert not record_of(runtime).former_rules
