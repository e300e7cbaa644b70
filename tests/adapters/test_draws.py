"""Reading every draw returns what sensors need, and nothing large."""

from __future__ import annotations

import pytest

from regworkers_core.runtime import Runtime

pytestmark = pytest.mark.namespace("module")

_LARGE = ("manifest", "seedFile", "summary", "freeze", "eligibility")


def test_reading_all_draws_leaves_out_large_fields(runtime: Runtime) -> None:
    kept = {
        "status": "PUBLISHED",
        "publishedAt": "2026-03-01T12:00:00.000Z",
        "releasedAt": "2026-03-01T13:00:00.000Z",
        "notBefore": "2026-03-01T12:00:00.000Z",
        "confirmedAt": "2026-03-01T12:00:00.000Z",
        "resultHash": "a" * 64,
        "outcomes": {"WINNER": 3},
        "markets": {"berlin": {"status": "PENDING", "planned": 3}},
        # The seats that count now are asked of all campaigns at once.
        "terms": {"markets": [{"marketId": "berlin", "capacity": 3, "reserves": []}]},
    }
    large = {name: {"strikes": ["x"] * 10} for name in _LARGE}
    report = {"page": "s3://bucket/page", "findings": ["x"], "warnings": ["x"], "funnel": {"x": 1}}
    terms = {**kept["terms"], "strikes": ["x"] * 10}  # type: ignore[dict-item]
    phases = {str(number): {**kept, **large, "terms": terms, "report": report} for number in (1, 2, 10)}
    runtime.database["draws"].insert_one(
        {"_id": "summer", "drawId": "summer", "token": 7, "phases": phases, "notifications": {"paused": True}}
    )
    (record,) = runtime.draws.all()
    assert (record.campaign_id, record.token, list(record.phases)) == ("summer", 7, [1, 2, 10])
    assert record.notifications == {"paused": True}
    for phase in record.phases.values():
        # That there is a report is what the decision about a confirmation asks.
        assert phase.fields == {**kept, "report": {"page": "s3://bucket/page"}}
    whole = runtime.draws.get("summer")
    assert whole is not None and whole.latest.fields == phases["10"]


@pytest.mark.parametrize("token", [1, 2])
def test_what_was_decided_once_stays_for_every_later_run(runtime: Runtime, token: int) -> None:
    runtime.draws.open("summer", 1, {"asOf": "2026-03-01T12:00:00.000Z"}, token=1)
    first = {"manifest": "first", "manifestHash": "a" * 64}
    assert runtime.draws.decide("summer", 1, first, token=1, once="manifestHash")
    other = {"manifest": "other", "manifestHash": "b" * 64}
    assert not runtime.draws.decide("summer", 1, other, token=token, once="manifestHash")
    record = runtime.draws.get("summer")
    assert record is not None and first.items() <= record.latest.fields.items()
