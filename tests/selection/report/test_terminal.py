"""Simulations at the terminal and on the launchpad."""

from __future__ import annotations

from typing import Any

import pytest

from regworkers_core.domain.campaign import Campaign, CampaignStatus, DrawRules, Market, Reserve
from regworkers_core.runtime import Runtime
from tests.support.drains import run
from tests.support.entries import key, put
from tests.support.faces import Face
from tests.support.terminal import regworkers

INVENTED = (
    "draw",
    "simulate",
    "spring",
    "--entries",
    "500",
    "--capacity",
    "north=40",
    "--capacity",
    "south=20",
)


def campaign() -> Campaign:
    return Campaign(
        campaign_id="spring",
        slug="spring-tour",
        name="Spring tour",
        status=CampaignStatus.OPEN,
        opens_at="2026-03-01T00:00:00.000Z",
        closes_at="2026-03-15T00:00:00.000Z",
        markets=(Market("north", "North Arena", 10, (Reserve("local", 4),)), Market("south", "South", 5)),
        draw=DrawRules(),
    )


def register(runtime: Runtime, count: int) -> None:
    """Entries as the replica holds them; the last one cannot take part."""
    runtime.database["entries"].insert_many(
        {
            "_id": f"spring:e{n}",
            "campaignId": "spring",
            "entryId": f"e{n}",
            "ref": f"ref-{n:04d}",
            "email": f"fan{n}@example.com",
            "firstName": "Zoë",
            "lastName": "Łukasz",
            "segments": ["local"] if n % 4 == 0 else [],
            "markets": ["north", "south"] if n < count - 1 else ["nowhere"],
            "createdAt": "2026-03-02T00:00:00.000Z",
            "version": 1,
            "updatedAt": "2026-03-02T00:00:00.000Z",
            "_replication": {
                "createdAt": "2026-03-02T00:00:00.000Z",
                "version": 1,
                "updatedAt": "2026-03-02T00:00:00.000Z",
            },
        }
        for n in range(count)
    )


def stored(runtime: Runtime) -> dict[str, list[object]]:
    """Everything in the database."""
    names = sorted(runtime.database.list_collection_names())
    return {name: list(runtime.database[name].find().sort("_id", 1)) for name in names}


def test_odds_come_from_the_replica_as_it_is_and_nothing_is_written(runtime: Runtime, face: Face) -> None:
    runtime.campaigns.create(campaign())
    register(runtime, 61)
    before = stored(runtime)
    answer = face.does(
        "draw simulate", campaign_id="spring", capacities={"south": 8}, weights={"local": 5}, rounds=2
    )
    assert answer.fine, answer.text
    for text in ("not the draw", "by segment" if face.name == "terminal" else "by_segment", "NO_MARKET"):
        assert text in answer.text
    assert stored(runtime) == before
    assert "@" not in answer.text and "ref-0" not in answer.text
    assert not runtime.objects.list("draws/") and not runtime.objects.list("pipeline/")
    put(runtime, key("on-its-way", "spring"))
    behind = face.does("draw simulate", campaign_id="spring", rounds=1)
    assert behind.fine and "replication is behind, so entries may be missing here: the stream" in behind.text


def test_the_document_has_the_odds_by_market_and_segment(runtime: Runtime) -> None:
    runtime.campaigns.create(campaign())
    register(runtime, 61)
    words = ("draw", "simulate", "spring", "--format", "json")
    document = regworkers(
        runtime, *words, "--capacity", "south=8", "--weights", "local=5", "--rounds", "4"
    ).document
    assert document["simulation"] is True and "not the draw" in document["notice"]
    assert document["pool"]["excluded"] == {"NO_MARKET": 1} and document["entries"] == 60
    assert document["winners"] == {"mean": 18, "low": 18, "high": 18} and document["rounds"] == 4
    seats = {market["marketId"]: market["seats"] for market in document["markets"]}
    assert seats == {"north": 10, "south": 8} and document["warnings"] == []
    local, none = (
        next(row["odds"]["mean"] for row in document["segments"] if row["segment"] == name)
        for name in ("local", "")
    )
    assert local > none
    put(runtime, key("e1"))
    run(runtime, "enqueue")
    (warning,) = regworkers(runtime, *words).document["warnings"]
    assert "1 messages wait" in warning


def test_synthetic_entries_need_no_server_and_repeat_with_a_seed_word() -> None:
    words = (*INVENTED, "--seed", "try", "--rounds", "2", "--format", "json")
    first, again = regworkers(None, *words), regworkers(None, *words)
    assert first.code == 0, first.stderr
    assert first.document["winners"]["mean"] == 60 and first.document["pool"]["invented"] is True
    assert first.document == again.document


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"capacities": {"rome": 1}}, "it has north, south"),
        ({"reserves": {"north": {"local": 41}}}, "reserves of 41 seats exceed its 10"),
        ({"weights": {"local": 0}}, "weight of local: expected 1 to 64"),
        ({"rounds": 0}, "rounds should be greater than or equal to 1"),
        ({"campaign_id": "autumn"}, "there is no campaign 'autumn'"),
    ],
)
def test_what_is_wrong_with_the_rules_is_named_on_both_faces(
    runtime: Runtime, face: Face, given: dict[str, Any], said: str
) -> None:
    runtime.campaigns.create(campaign())
    answer = face.does("draw simulate", **{"campaign_id": "spring", **given})
    assert not answer.fine and said in answer.text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--seed", "ab" * 32), "which a simulation must not use"),
        (("--capacity", "north"), "--capacity takes NAME=N"),
        (("--capacity", "north=1"), "--capacity names north twice"),
        (("--reserve", "north=1"), "--reserve takes MARKET:SEGMENT=N"),
    ],
)
def test_wrong_options_are_refused_and_named(words: tuple[str, str], expected: str) -> None:
    refused = regworkers(None, *INVENTED, *words)
    assert refused.code == 2 and expected in refused.stderr and refused.stdout == ""
