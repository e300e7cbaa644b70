"""The periods of a campaign's data begin when its draw is over, and nothing goes before; on the real servers."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fairdraw.terms import ALGORITHM
from regworkers_core.adapters.aws.tables import attributes, plain_item
from regworkers_core.adapters.mongo.draws import lease_name
from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.domain.reasons import RequestError
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import held_lease
from regworkers_core.operations.retention import PartResult, apply_retention, campaign_parts
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.changes import open_phase
from regworkers_core.selection.draw.terms import TopUp
from tests.support.campaigns import advance_to, create

NOW = time.time()
DAYS = {"claims": 10, "pipeline": 20, "outbox": 30, "selections": 40, "codes": 50}
COLLECTIONS = ("outbox", "selections", "selection_chunks", "codes")

pytestmark = pytest.mark.namespace(
    "module",
    housekeeping={f"{name}_days": days for name, days in DAYS.items()},
    selection={"lease_seconds": 0.5},
)


def ago(days: float) -> str:
    return iso(NOW - days * 24 * 3600)


def plant(runtime: Runtime, campaign_id: str, *phases: dict[str, Any], delivered: bool = True) -> None:
    """A drawn campaign with one of each; a phase without `completedAt` is open."""
    markets = {
        "berlin": {"planned": 1, "status": "COMPLETED", **({"deliveredAt": ago(1)} if delivered else {})}
    }
    terms = {"algorithm": ALGORITHM}
    documents = {
        str(number): {"phase": number, "status": "PUBLISHED", "terms": terms, "markets": markets, **phase}
        for number, phase in enumerate(phases, 1)
    }
    runtime.database["draws"].insert_one(
        {
            "_id": campaign_id,
            "campaignId": campaign_id,
            "drawId": campaign_id,
            "token": 0,
            "phases": documents,
        }
    )
    of = {"campaignId": campaign_id, "marketId": "berlin", "phase": 1}
    runtime.database["outbox"].insert_one({"_id": f"{campaign_id}:berlin:1:r1", **of})
    runtime.database["selections"].insert_one({"_id": f"{campaign_id}:berlin:1:r1", **of})
    runtime.database["selection_chunks"].insert_one({"_id": f"{campaign_id}:berlin:1:1", **of, "chunk": 1})
    runtime.database["codes"].insert_many(
        [
            {"_id": f"{campaign_id}-{n}", "campaignId": campaign_id, "marketId": "berlin", "position": n}
            for n in (1, 2)
        ]
    )
    runtime.objects.put_bytes(f"pipeline/{campaign_id}/phase-1/pool.parquet", b"x")
    for sk in ("IDENTITY#email#abc", "INVITE#email#x", "ENTRY#e1"):
        item = attributes({"PK": f"CAMPAIGN#{campaign_id}", "SK": sk, "entryId": "e1"})
        runtime.dynamodb.put_item(TableName=runtime.names.demand_table, Item=item)


def done(days_ago: float) -> dict[str, Any]:
    return {"status": "COMPLETED", "completedAt": ago(days_ago)}


def apply(runtime: Runtime, *, dry_run: bool = False) -> dict[str, PartResult]:
    found = apply_retention(campaign_parts(runtime), dry_run=dry_run)
    assert found.fine, found.as_dict()
    return {part.name: part for part in found.parts}


def marked(runtime: Runtime, campaign_id: str) -> set[str]:
    """What the stores will delete by themselves."""
    names = set()
    for name in COLLECTIONS:
        # A server may have deleted it already.
        of_campaign = list(runtime.database[name].find({"campaignId": campaign_id}))
        if all("expiresAt" in each for each in of_campaign):
            names.add(name)
        else:
            assert not any("expiresAt" in each for each in of_campaign), name
    if not runtime.objects.list(f"pipeline/{campaign_id}/"):
        names.add("pipeline")
    pk = {":pk": {"S": f"CAMPAIGN#{campaign_id}"}}
    table = {"TableName": runtime.names.demand_table, "KeyConditionExpression": "PK = :pk"}
    items = runtime.dynamodb.query(**table, ExpressionAttributeValues=pk)["Items"]
    with_ttl = [item["SK"] for item in map(plain_item, items) if "ttl" in item]
    assert with_ttl in ([], ["IDENTITY#email#abc"]), "invites and entries have periods of their own"
    # The server may have deleted it already.
    is_kept = any(item["SK"] == "IDENTITY#email#abc" for item in map(plain_item, items))
    return names | ({"claims"} if with_ttl or not is_kept else set())


@pytest.mark.parametrize(
    ("days", "gone"),
    [
        (9, set()),
        (11, {"claims"}),
        (21, {"claims", "pipeline"}),
        (51, {"claims", "pipeline", *COLLECTIONS}),
    ],
)
def test_each_kind_of_data_goes_once_its_period_is_over(runtime: Runtime, days: int, gone: set[str]) -> None:
    plant(runtime, "old", done(days))
    plant(runtime, "older-name", done(1))
    counted = apply(runtime, dry_run=True)
    assert {name for name, part in counted.items() if part.over} == gone - {"selection_chunks"}
    assert marked(runtime, "old") == set(), "a dry run marks nothing"
    assert sum(part.deleted for part in apply(runtime).values()) == len(gone) + ("codes" in gone)
    assert marked(runtime, "old") == gone
    assert marked(runtime, "older-name") == set()
    assert not any(part.over for part in apply(runtime).values()), "what is marked is not looked at again"


def test_an_open_phase_stops_the_periods_and_its_end_begins_them_again(runtime: Runtime) -> None:
    plant(runtime, "topped-up", done(99), {})
    plant(runtime, "topped-up-and-over", done(99), done(11))
    apply(runtime)
    assert marked(runtime, "topped-up") == set()
    assert marked(runtime, "topped-up-and-over") == {"claims"}


@pytest.mark.parametrize(
    ("status", "days", "gone"),
    [
        (CampaignStatus.OPEN, 99, set()),
        (CampaignStatus.CLOSED, 9, set()),
        (CampaignStatus.CLOSED, 99, {"claims"}),
        (CampaignStatus.PROCESSING, 99, set()),
    ],
)
def test_claims_of_a_campaign_that_was_closed_and_never_drawn_go_from_its_closing(
    runtime: Runtime, status: CampaignStatus, days: int, gone: set[str]
) -> None:
    plant(runtime, "called-off")
    runtime.database["draws"].delete_many({})
    create(runtime, "called-off", closesAt=ago(days))
    advance_to(runtime, "called-off", status)
    counted = apply(runtime, dry_run=True)
    assert {name for name, part in counted.items() if part.over} == gone
    assert marked(runtime, "called-off") == set(), "a dry run marks nothing"
    done = apply(runtime)
    assert sum(part.deleted for part in done.values()) == len(gone)
    assert ("called-off is closed and was never drawn" in done["claims"].note) is bool(gone)
    assert marked(runtime, "called-off") == gone, "a draw may follow, and needs its codes"
    assert not any(part.deleted for part in apply(runtime).values())


def test_messages_that_wait_keep_their_rows(runtime: Runtime) -> None:
    plant(runtime, "paused", done(99), delivered=False)
    assert "not delivered" in apply(runtime)["outbox"].note
    assert "outbox" not in marked(runtime, "paused")


def test_no_top_up_begins_once_data_that_it_needs_may_be_gone(runtime: Runtime) -> None:
    plant(runtime, "old", done(21))
    apply(runtime)
    top_up = TopUp(capacities={"berlin": 2}, reserves={}, strikes=(), reason="more seats")
    with pytest.raises(
        RequestError, match="too old for a top-up: the retention periods of its pipeline ended by 20"
    ):
        open_phase(runtime, "old", top_up, run_id="r")


def test_a_draw_that_another_run_holds_is_left_for_the_next_time(runtime: Runtime) -> None:
    plant(runtime, "busy", done(11))
    with held_lease(runtime.leases, lease_name("busy"), "other", lease_seconds=0.5):
        assert "another run works on its draw" in apply(runtime)["claims"].note
    assert marked(runtime, "busy") == set()
    assert apply(runtime)["claims"].deleted == 1


def test_a_run_that_died_while_it_marked_is_continued(runtime: Runtime) -> None:
    plant(runtime, "old", done(51))
    later = datetime.now(UTC) + timedelta(hours=1)
    runtime.database["codes"].update_one({"_id": "old-1"}, {"$set": {"expiresAt": later}})
    runtime.database["draws"].update_one({"_id": "old"}, {"$set": {"expired.codes.at": ago(1)}})
    assert apply(runtime)["codes"].deleted == 1
    assert marked(runtime, "old") >= {"codes"}


def test_mongodb_deletes_what_is_marked(runtime: Runtime) -> None:
    for name in COLLECTIONS:
        indexes = runtime.database[name].index_information().values()
        (expiry,) = [index for index in indexes if index["key"][0][0] == "expiresAt"]
        assert expiry["expireAfterSeconds"] == 0
