"""`regworkers draw simulate` as it is typed."""

from __future__ import annotations

import orjson
import pytest
from typer.testing import CliRunner

from regworkers_core.cli import draw_report
from regworkers_core.domain.campaign import Campaign, CampaignStatus, DrawRules, Market, Reserve
from regworkers_core.domain.reasons import UsageError
from regworkers_core.runtime import Runtime
from tests.support.drains import run
from tests.support.entries import key, put
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


def test_odds_come_from_the_replica_as_it_is_and_nothing_is_written(runtime: Runtime) -> None:
    runtime.campaigns.create(campaign())
    register(runtime, 61)
    before = stored(runtime)
    answer = regworkers(
        runtime, "draw", "simulate", "spring", "--capacity", "south=8", "--weights", "local=5", "--rounds", "4",
        "--format", "json",
    )  # fmt: skip
    assert answer.code == 0, answer.stderr
    document = answer.document
    assert document["simulation"] is True and "not the draw" in document["notice"]
    assert document["pool"]["excluded"] == {"NO_MARKET": 1} and document["entries"] == 60
    assert document["winners"] == {"mean": 18, "low": 18, "high": 18} and document["rounds"] == 4
    seats = {market["marketId"]: market["seats"] for market in document["markets"]}
    assert seats == {"north": 10, "south": 8}
    local, none = (
        next(row["odds"]["mean"] for row in document["segments"] if row["segment"] == name)
        for name in ("local", "")
    )
    assert local > none
    assert stored(runtime) == before
    assert "@" not in answer.stdout + answer.stderr and "ref-0" not in answer.stdout + answer.stderr
    assert not runtime.objects.list("draws/") and not runtime.objects.list("pipeline/")


def test_entries_in_transit_are_a_warning(runtime: Runtime) -> None:
    runtime.database["campaigns"].insert_one(campaign().as_document())
    assert regworkers(runtime, "draw", "simulate", "spring", "--format", "json").document["warnings"] == []
    put(runtime, key("e1"))
    answer = regworkers(runtime, "draw", "simulate", "spring")
    assert "warning: replication is behind, so entries may be missing here: the stream" in answer.stdout
    run(runtime, "enqueue")
    (warning,) = regworkers(runtime, "draw", "simulate", "spring", "--format", "json").document["warnings"]
    assert "1 messages wait" in warning


def test_an_unknown_campaign_is_one_line_with_advice(runtime: Runtime) -> None:
    answer = regworkers(runtime, "draw", "simulate", "autumn")
    assert answer.code == 2 and answer.stdout == ""
    assert "there is no campaign 'autumn'" in answer.stderr and "campaign list" in answer.stderr


def test_synthetic_entries_need_no_server_and_repeat_with_a_seed_word() -> None:
    words = (*INVENTED, "--seed", "try", "--rounds", "2", "--format", "json")
    first, again = regworkers(None, *words), CliRunner().invoke(draw_report.app, words[1:])
    assert first.code == 0, first.stderr
    assert first.document["winners"]["mean"] == 60 and first.document["pool"]["invented"] is True
    assert first.document == orjson.loads(again.stdout)


def test_the_text_says_that_it_is_not_the_draw() -> None:
    text = CliRunner().invoke(
        draw_report.app, [*INVENTED[1:], "--rounds", "1", "--reserve", "north:local=10"]
    )
    assert text.exit_code == 0 and "not the draw" in text.stdout and "by segment" in text.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--seed", "ab" * 32), "which a simulation must not use"),
        (("--capacity", "north"), "--capacity takes NAME=N"),
        (("--capacity", "north=1"), "--capacity names north twice"),
        (("--reserve", "north=1"), "--reserve takes MARKET:SEGMENT=N"),
        (("--reserve", "west:local=1"), "market 'west' is not in the campaign"),
        (("--reserve", "north:local=41"), "reserves of 41 seats exceed its 40"),
        (("--weights", "local=0"), "weight of local: expected 1 to 64"),
    ],
)
def test_wrong_options_are_refused_and_named(words: tuple[str, str], expected: str) -> None:
    refused = CliRunner().invoke(draw_report.app, [*INVENTED[1:], *words])
    assert isinstance(refused.exception, UsageError) and expected in str(refused.exception)
