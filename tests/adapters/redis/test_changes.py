"""The next read sees a change of a campaign, whatever made it and whatever was being read."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from structlog.testing import capture_logs

from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.eligibility import Missing
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns import registry
from regworkers_core.selection.campaigns.opening import log_open
from regworkers_local.load import CAMPAIGNS, Loader, LoadPlan
from tests.adapters.redis.support import (
    CLOSED,
    FakeSource,
    cache_over,
    campaign,
    from_cache,
    from_source,
    store_of,
)
from tests.support.campaigns import advance_to, create
from tests.support.runtimes import test_settings
from tests.support.waiting import wait_until

pytestmark = pytest.mark.namespace("module")

OPEN = campaign()


@pytest.fixture
def provisioned(runtime: Runtime) -> Runtime:
    runtime.redis_client.flushdb()
    return runtime


def ask(runtime: Runtime, name: str = "summer") -> Campaign | None:
    found = runtime.campaign_cache.find(name)
    assert not isinstance(found, Missing)
    return found.value


def test_a_campaign_that_was_asked_for_too_early_is_found_once_it_is_created(provisioned: Runtime) -> None:
    assert ask(provisioned) is ask(provisioned, "summer-tour") is None
    made = create(provisioned, slug="summer-tour")
    assert ask(provisioned) == ask(provisioned, "summer-tour") == made


def test_every_step_of_a_campaign_is_seen_by_the_next_read(provisioned: Runtime) -> None:
    create(provisioned, slug="summer-tour")
    ask(provisioned, "summer-tour")
    for status in list(CampaignStatus)[1:]:
        advance_to(provisioned, "summer", status)
        for name in ("summer", "summer-tour"):
            found = ask(provisioned, name)
            assert found is not None and found.status is status


def test_a_repeated_step_forgets_too_for_the_one_who_made_it_may_have_died(provisioned: Runtime) -> None:
    create(provisioned)
    ask(provisioned)
    # What a run leaves that died between its write and the cache.
    provisioned.database["campaigns"].update_one({"_id": "summer"}, {"$set": {"status": "OPEN"}})
    registry.advance(provisioned, "summer", CampaignStatus.OPEN, reason="again", run_id="r")
    found = ask(provisioned)
    assert found is not None and found.status is CampaignStatus.OPEN


def test_what_the_public_log_has_is_seen(provisioned: Runtime) -> None:
    provisioned.campaigns.create(OPEN)
    ask(provisioned)
    log_open(provisioned)
    found = ask(provisioned)
    assert found is not None and found.opened == provisioned.campaigns.require_id(OPEN.campaign_id).opened
    assert found.opened is not None and found.opened.terms


def test_the_demo_campaigns_are_found_once_they_are_loaded(provisioned: Runtime) -> None:
    name = CAMPAIGNS[0].campaign_id
    assert ask(provisioned, name) is None
    Loader(provisioned, LoadPlan()).insert_first()
    assert ask(provisioned, name) is not None


def test_a_late_reader_does_not_restore_the_old_state(bare: Runtime) -> None:
    source = FakeSource(OPEN)
    cache, gate = cache_over(bare, source), source.gate
    gate.clear()
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(cache.find, "summer")
        wait_until(lambda: source.reads)
        source.campaigns, source.gate = [CLOSED], type(gate)()
        source.gate.set()
        cache.forget(OPEN)
        # Nor does who asks after the change join the read that began before it.
        assert cache.find("summer") == from_source(CLOSED)
        gate.set()
        assert late.result() == from_source(OPEN)
    assert cache.find("summer") == from_cache(CLOSED)


def test_a_negative_answer_that_is_late_does_not_hide_what_was_created(bare: Runtime) -> None:
    source = FakeSource()
    cache, gate = cache_over(bare, source), source.gate
    gate.clear()
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(cache.find, "summer-tour")
        wait_until(lambda: source.reads)
        source.campaigns, source.gate = [OPEN], type(gate)()
        source.gate.set()
        cache.forget(OPEN)
        gate.set()
        assert late.result() == from_source(None)
    assert cache.find("summer-tour") == from_source(OPEN)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "redis://unknown:wrong@127.0.0.1:1/0"])
def test_a_change_without_redis_is_made_and_logged(bare: Runtime, url: str) -> None:
    bare.campaign_cache.find("summer")
    unavailable = Runtime(test_settings(bare.names.prefix, redis={"url": url}))
    with capture_logs() as lines:
        unavailable.campaign_cache.forget(OPEN)
    assert [(line["event"], line["campaignId"]) for line in lines] == [
        ("cache invalidation failed", "summer")
    ]
    assert "wrong" not in repr(lines)


def forgotten(change: Callable[[Runtime], object], runtime: Runtime) -> bool:
    before = store_of(runtime).look("summer").state
    change(runtime)
    return store_of(runtime).look("summer").state != before


def test_forgetting_reaches_other_processes_through_redis(bare: Runtime) -> None:
    bare.campaigns.create(OPEN)
    other = Runtime(bare.settings)
    assert other.campaign_cache.find("summer") == from_source(OPEN)
    assert forgotten(lambda runtime: runtime.campaign_cache.forget(OPEN), bare)
    assert other.campaign_cache.find("summer") == from_source(OPEN)
    other.mongo.close()
