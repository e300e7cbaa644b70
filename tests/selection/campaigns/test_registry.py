"""Creating a campaign, and the secret that its draw is committed to."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import orjson
import pytest

from fairdraw.log.leaves import Kind
from regworkers_core.domain.campaign import CampaignStatus, Transition
from regworkers_core.domain.reasons import UsageError
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns import registry
from regworkers_core.selection.campaigns.registry import ensure_commitment, make_secret, reveal
from regworkers_core.selection.public.public_log import PublicLog
from regworkers_local.load import CAMPAIGNS, Loader, LoadPlan
from tests.support.campaigns import create, definition

pytestmark = pytest.mark.namespace("module")

SECRET = bytes(range(32))


def test_the_commitment_is_public_and_the_secret_is_only_in_the_store(runtime: Runtime) -> None:
    campaign = registry.create(runtime, definition(), entropy=lambda _size: SECRET)
    assert campaign.draw.commitment == hashlib.sha256(SECRET).hexdigest()
    stored = runtime.campaigns.get("summer")
    assert stored == campaign
    raw = orjson.dumps(runtime.database["campaigns"].find_one({"_id": "summer"}))
    assert SECRET.hex().encode() not in raw and campaign.draw.commitment.encode() in raw
    assert runtime.secrets.get("draw-secret/summer") == SECRET.hex()
    assert reveal(runtime, "summer") == SECRET.hex()
    assert SECRET.hex() not in repr(campaign) + repr(runtime.secrets)


def test_two_campaigns_get_secrets_of_32_bytes_that_differ(runtime: Runtime) -> None:
    one, two = create(runtime, "one"), create(runtime, "two")
    assert one.draw.commitment != two.draw.commitment
    assert len(bytes.fromhex(reveal(runtime, "one"))) == 32


def test_a_creation_that_died_half_way_is_repeated_with_the_same_secret(runtime: Runtime) -> None:
    before = make_secret(runtime, "summer", entropy=lambda _size: SECRET)
    campaign = create(runtime)
    assert campaign.draw.commitment == before
    assert reveal(runtime, "summer") == SECRET.hex()


def test_a_taken_id_or_slug_is_refused_and_nothing_changes(runtime: Runtime) -> None:
    first = create(runtime, slug="hot-summer")
    with pytest.raises(UsageError, match=r"summer has that id or slug already.*campaign show summer"):
        create(runtime, name="Another")
    with pytest.raises(UsageError, match="summer has that id or slug already"):
        create(runtime, "other", slug="hot-summer")
    assert runtime.campaigns.list() == [first]
    assert runtime.secrets.get("draw-secret/other") is None


def test_a_campaign_that_was_faster_by_a_moment_is_met_by_the_store(runtime: Runtime) -> None:
    first = create(runtime)
    with pytest.raises(UsageError, match="summer exists already"):
        runtime.campaigns.create(replace(first, name="Another"))
    with pytest.raises(UsageError, match="another campaign has the slug 'summer'"):
        runtime.campaigns.create(replace(first, campaign_id="other"))
    runtime.campaigns.create(first)


def test_a_campaign_is_found_by_id_first_and_then_by_slug(runtime: Runtime) -> None:
    create(runtime, "one", slug="two")
    create(runtime, "two", slug="second")
    assert (
        runtime.campaigns.require("two").campaign_id
        == runtime.campaigns.require("second").campaign_id
        == "two"
    )
    with pytest.raises(UsageError, match="campaign list"):
        runtime.campaigns.require("third")


def test_a_campaign_that_came_without_a_commitment_gets_one_late_and_keeps_it(runtime: Runtime) -> None:
    document = create(runtime).as_document()
    runtime.database["campaigns"].update_one({"_id": "summer"}, {"$unset": {"draw": ""}})
    came = runtime.campaigns.require_id("summer")
    assert came.draw.commitment is None
    given = ensure_commitment(runtime, came)
    assert given.late and given.commitment == document["draw"]["commitment"]
    # Asked again, with the campaign as it was read before and as it is now.
    assert ensure_commitment(runtime, came) == given
    now = runtime.campaigns.require_id("summer")
    assert ensure_commitment(runtime, now) == given
    assert not runtime.campaigns.set_commitment("summer", "0" * 64, "2026-01-01T00:00:00.000Z")
    assert runtime.campaigns.get("summer") == now
    assert given.commitment == hashlib.sha256(bytes.fromhex(reveal(runtime, "summer"))).hexdigest()


def test_a_commitment_is_in_time_only_when_it_came_before_the_opening(runtime: Runtime) -> None:
    early = create(runtime, "early", opensAt="2998-01-01T00:00:00Z", closesAt="2999-01-01T00:00:00Z")
    late = create(runtime, "late", opensAt="2026-01-01T00:00:00Z", closesAt="2999-01-01T00:00:00Z")
    assert ensure_commitment(runtime, early).late is False
    assert ensure_commitment(runtime, late).late is True


@pytest.mark.parametrize(
    ("opens_at", "opened_at", "late"),
    [
        ("2026-03-01T00:00:00.000Z", "2026-03-05T00:00:00.000Z", False),
        ("2026-03-01T00:00:00.000Z", "2026-03-03T00:00:00.000Z", True),
        ("2026-03-05T00:00:00.000Z", "2026-03-02T00:00:00.000Z", False),
        ("2026-03-01T00:00:00.000Z", None, True),
    ],
)
def test_a_draft_takes_no_entries_so_its_commitment_is_in_time_until_it_opens(
    runtime: Runtime, opens_at: str, opened_at: str | None, late: bool
) -> None:
    campaign = create(runtime, opensAt=opens_at, closesAt="2999-01-01T00:00:00Z")
    draw = replace(campaign.draw, committed_at="2026-03-04T00:00:00.000Z")
    opening = Transition(CampaignStatus.DRAFT, CampaignStatus.OPEN, opened_at or "", "by hand", "run", 1)
    campaign = replace(campaign, draw=draw, transitions=(opening,) if opened_at else ())
    assert ensure_commitment(runtime, campaign).late is late


def test_the_time_of_a_commitment_that_came_with_the_campaign_is_unknown(runtime: Runtime) -> None:
    create(runtime)
    runtime.database["campaigns"].update_one({"_id": "summer"}, {"$unset": {"draw.committedAt": ""}})
    came = runtime.campaigns.require("summer")
    assert came.draw.commitment and ensure_commitment(runtime, came).late is None


def test_a_secret_that_is_gone_changed_or_malformed_is_found_before_anything_is_committed(
    runtime: Runtime,
) -> None:
    campaign = create(runtime)
    name = f"{runtime.names.prefix}draw-secret/summer"
    client = runtime.aws.client("secretsmanager")
    for value, expected in ((os.urandom(32).hex(), "not the one"), ("hunter2", "64 lowercase hex digits")):
        client.put_secret_value(SecretId=name, SecretString=value)
        with pytest.raises(UsageError, match=expected) as error:
            ensure_commitment(runtime, campaign)
        assert value not in str(error.value)
    client.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
    with pytest.raises(UsageError, match=f"put it under {name}"):
        ensure_commitment(runtime, campaign)
    with pytest.raises(UsageError, match="not in the secret store"):
        reveal(runtime, "summer")


def test_a_secret_is_created_once_and_never_overwritten(runtime: Runtime) -> None:
    assert runtime.secrets.get("draw-secret/x") is None
    assert runtime.secrets.create("draw-secret/x", "first") == "first"
    assert runtime.secrets.create("draw-secret/x", "second") == "first"
    assert runtime.secrets.get("draw-secret/x") == "first"


def test_the_demo_campaigns_are_committed_to_in_the_log_before_they_open(runtime: Runtime) -> None:
    Loader(runtime, LoadPlan()).write_campaigns()
    log = PublicLog.of(runtime).read()
    assert log is not None
    leaves = {leaf.campaign_id: leaf for index in range(log.size) if (leaf := log.leaf(index))}
    for each in CAMPAIGNS:
        campaign, leaf = runtime.campaigns.require(each.campaign_id), leaves[each.campaign_id]
        assert (leaf.kind, leaf.hash) == (Kind.COMMITMENT, campaign.draw.commitment)
        assert leaf.time <= campaign.opens_at
