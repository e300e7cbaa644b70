"""The judgement of a campaign as a manager types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from regworkers_core.runtime import Runtime
from tests.eligibility.campaign.world import closed, entry
from tests.support.typing_in import Typed


def test_a_report_shows_reasons_writes_a_page_and_decides_nothing(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runtime.campaigns.create(closed())
    runtime.database["entries"].insert_many(
        {**entry(name, email="fan@example.com"), "_id": f"summer:{name}", "_replication": {}}
        for name in ("a", "b")
    )
    typed = Typed(runtime, monkeypatch, capfd)
    page = tmp_path / "report.html"
    answer = typed("eligibility", "report", "summer", "--page", str(page), "--format", "json")
    assert answer.code == 0
    assert answer.document["primaryReasons"] == {"ALREADY_ENTERED": 1}
    assert "ALREADY_ENTERED" in page.read_text(encoding="utf-8")
    assert "fan@example.com" not in answer.stdout + answer.stderr + page.read_text(encoding="utf-8")
    text = typed("eligibility", "report", "summer")
    assert "2 entries, 1 eligible" in text.stdout and "2026-01-10" in text.stdout
    assert "<h2>Reasons</h2>" in page.read_text(encoding="utf-8")
    runtime.database["entries"].delete_one({"_id": "summer:b"})
    assert typed("eligibility", "report", "summer", "--page", str(page)).code == 0
    assert "Why not" not in page.read_text(encoding="utf-8"), "a table without a line"
    assert runtime.draws.get("summer") is None
    nowhere = typed("eligibility", "report", "winter", "--page", str(tmp_path / "none" / "report.html"))
    assert nowhere.code == 2 and "there is no folder" in nowhere.stderr, "said before anything is looked for"
    unknown = typed("eligibility", "report", "winter")
    assert unknown.code == 2 and "campaign list" in unknown.stderr
