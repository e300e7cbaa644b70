"""The funnel of a campaign and the preview of its judgement, at the terminal and on the launchpad."""

from __future__ import annotations

from pathlib import Path

from regworkers_core.runtime import Runtime
from tests.dagster.selection.world import registered
from tests.eligibility.campaign.world import closed, entry
from tests.selection.draw.world import CAMPAIGN
from tests.support.faces import Face
from tests.support.terminal import regworkers


def test_a_preview_counts_reasons_decides_nothing_and_names_no_fan(runtime: Runtime, face: Face) -> None:
    runtime.campaigns.create(closed())
    runtime.database["entries"].insert_many(
        {**entry(name, email="fan@example.com"), "_id": f"summer:{name}", "_replication": {}}
        for name in ("a", "b")
    )
    seen = face.does("eligibility report", campaign_id="summer")
    assert seen.fine and all(word in seen.text for word in ("preview", "ALREADY_ENTERED", "2026-01-10"))
    assert ("data:image/png" in seen.text) is (face.name == "launchpad")
    assert "fan@example.com" not in seen.text
    assert runtime.draws.get("summer") is None and not runtime.operator_actions.history()
    unknown = face.does("eligibility report", campaign_id="winter")
    assert not unknown.fine and "there is no campaign 'winter'" in unknown.text


def test_a_page_of_the_preview_is_written_where_it_can_be(runtime: Runtime, tmp_path: Path) -> None:
    runtime.campaigns.create(closed())
    runtime.database["entries"].insert_many(
        {**entry(name, email="fan@example.com"), "_id": f"summer:{name}", "_replication": {}}
        for name in ("a", "b")
    )
    page = tmp_path / "report.html"
    words = ("eligibility", "report", "summer", "--page", str(page), "--format", "json")
    document = regworkers(runtime, *words).document
    assert (document["campaignId"], document["primaryReasons"]) == ("summer", {"ALREADY_ENTERED": 1})
    assert "<h2>Reasons</h2>" in page.read_text() and "fan@example.com" not in page.read_text()
    runtime.database["entries"].delete_one({"_id": "summer:b"})
    assert regworkers(runtime, *words).code == 0
    assert "Why not" not in page.read_text(), "a table without a line"
    nowhere = regworkers(
        runtime, "eligibility", "report", "winter", "--page", str(tmp_path / "none" / "report.html")
    )
    assert nowhere.code == 2 and "there is no folder" in nowhere.stderr, "said before anything is read"


def test_a_funnel_shows_a_campaign_before_its_draw_without_a_fans_data(runtime: Runtime, face: Face) -> None:
    registered(runtime, 3)
    seen = face.does("report funnel", campaign_id=CAMPAIGN)
    assert seen.fine and "there is no draw yet" in seen.text
    assert ("data:image/png" in seen.text) is (face.name == "launchpad")
    page = runtime.objects.get_bytes(f"reports/{CAMPAIGN}/funnel.html").decode()
    assert not [word for word in ("@example.com", "Zoë", "Łukasz") if word in seen.text + page]
    nowhere = face.does("report funnel", campaign_id="nowhere")
    assert not nowhere.fine and "there is no campaign 'nowhere'" in nowhere.text
