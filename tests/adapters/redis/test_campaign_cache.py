"""What the cache answers: once, fresh, stale and said to be, or not at all."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest
from structlog.testing import capture_logs

from regworkers_core.adapters.campaign_cache import CampaignCache
from regworkers_core.adapters.campaign_store import as_cached
from regworkers_core.domain.eligibility import FactSource, Known, Missing
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.runtime import Runtime
from tests.adapters.redis.support import (
    CLOSED,
    FakeSource,
    cache_over,
    campaign,
    from_cache,
    from_source,
    make_stale,
    silent_server,
    store_of,
)
from tests.support.runtimes import test_settings
from tests.support.waiting import wait_until

OPEN = campaign()
UNAVAILABLE = TransientFailure("fake", "unavailable")


def test_sixty_four_threads_asking_for_one_cold_campaign_make_one_read(bare: Runtime) -> None:
    source, together = FakeSource(OPEN), threading.Barrier(64)
    source.gate.clear()
    cache = cache_over(bare, source)

    def ask() -> object:
        together.wait(20)
        return cache.find("summer-tour")

    with ThreadPoolExecutor(64) as pool:
        asked = [pool.submit(ask) for _ in range(64)]
        wait_until(lambda: source.reads)
        source.gate.set()
        assert all(getattr(each.result(), "value", None) == OPEN for each in asked)
    assert source.reads == ["summer-tour"]


def test_what_was_read_once_is_known_by_id_and_by_slug(bare: Runtime) -> None:
    source = FakeSource(OPEN)
    cache = cache_over(bare, source)
    assert cache.find("summer-tour") == from_source(OPEN)
    assert cache.find("summer-tour") == from_cache(OPEN)
    assert cache.find("summer") == from_cache(OPEN)
    assert source.reads == ["summer-tour"]
    assert orjson.loads(bare.redis_client.get("campaign:summer"))["campaignId"] == "summer"
    assert bare.redis_client.get("campaign:slug:summer-tour") == b"summer"


@pytest.mark.parametrize("key", ["campaign:summer", "campaign:slug:summer-tour"])
def test_a_deleted_key_makes_the_next_read_ask_the_source(bare: Runtime, key: str) -> None:
    source = FakeSource(OPEN)
    cache = cache_over(bare, source)
    cache.find("summer-tour")
    source.campaigns = [CLOSED]
    assert bare.redis_client.delete(key) == 1
    assert cache.find("summer-tour") == from_source(CLOSED)
    assert cache.find("summer") == from_cache(CLOSED)


def test_a_stale_entry_answers_at_once_and_is_refreshed_in_the_background(bare: Runtime) -> None:
    source = FakeSource(OPEN)
    cache = cache_over(bare, source)
    cache.find("summer")
    make_stale(bare)
    source.campaigns = [CLOSED]
    source.gate.clear()
    assert cache.find("summer") == cache.find("summer") == from_cache(OPEN, fresh=False)
    wait_until(lambda: len(source.reads) == 2)
    source.gate.set()
    wait_until(lambda: cache.find("summer") == from_cache(CLOSED))
    assert source.reads == ["summer", "summer"]


def test_a_campaign_that_is_gone_is_gone_after_its_refresh(bare: Runtime) -> None:
    source = FakeSource(OPEN)
    cache = cache_over(bare, source)
    cache.find("summer")
    make_stale(bare)
    source.campaigns = []
    wait_until(lambda: cache.find("summer") == from_cache(None))


def test_while_the_source_is_unavailable_stale_is_served_within_its_limit_and_marked(bare: Runtime) -> None:
    source = FakeSource(OPEN)
    cache = cache_over(bare, source)
    cache.find("summer")
    make_stale(bare)
    source.failure = UNAVAILABLE
    with capture_logs() as lines:
        for reads in (2, 3, 4):
            assert cache.find("summer") == from_cache(OPEN, fresh=False)
            wait_until(lambda reads=reads: len(source.reads) == len(lines) + 1 == reads)  # type: ignore[misc]
    assert {line["event"] for line in lines} == {"stale campaign not refreshed"}
    bare.redis_client.pexpire(store_of(bare).key("summer"), 1)
    wait_until(lambda: cache.find("summer") == Missing("fake", "unavailable"))


def test_without_mongodb_stale_is_served_and_then_mongodb_is_named(bare: Runtime) -> None:
    bare.campaigns.create(OPEN)
    bare.campaign_cache.find("summer")
    make_stale(bare)
    mongo = {"uri": "mongodb://127.0.0.1:1", "server_selection_timeout_seconds": 0.05}
    lost = Runtime(test_settings(bare.names.prefix, mongo=mongo, retry={"attempts": 1}))
    assert lost.campaign_cache.find("summer") == from_cache(OPEN, fresh=False)
    bare.redis_client.delete(store_of(bare).key("summer"))
    found = lost.campaign_cache.find("summer")
    assert isinstance(found, Missing) and found.dependency == "mongo"
    lost.mongo.close()


def test_callers_wait_for_a_slow_source_no_longer_than_the_setting(bare: Runtime) -> None:
    source = FakeSource(OPEN)
    source.gate.clear()
    cache = cache_over(bare, source, wait_seconds=0.02)
    assert cache.find("summer") == Missing("fake", "no answer within 0.02 s")
    source.gate.set()
    wait_until(lambda: cache.find("summer") == from_cache(OPEN))


def test_redis_down_goes_straight_to_mongodb(bare: Runtime) -> None:
    bare.campaigns.create(OPEN)
    down = Runtime(test_settings(bare.names.prefix, redis={"url": "redis://127.0.0.1:1/0"}))
    for name in ("summer", "summer-tour"):
        assert down.campaign_cache.find(name) == from_source(OPEN)
    assert down.campaign_cache.find("winter") == from_source(None)


def test_a_redis_that_never_answers_is_cut_off_and_then_not_asked_for_a_while(bare: Runtime) -> None:
    bare.campaigns.create(OPEN)
    with silent_server() as url, capture_logs() as lines:
        slow = Runtime(
            test_settings(
                bare.names.prefix,
                redis={"url": url, "timeout_seconds": 0.05},
                retry={"breaker_failures": 2, "breaker_reset_seconds": 600},
            )
        )
        for _ in range(20):
            assert slow.campaign_cache.find("summer") == from_source(OPEN)
    assert slow.dependencies.calls["redis"] == 2
    assert [line["event"] for line in lines] == ["cache unavailable, reading from source"] * 2


def test_without_redis_and_the_source_the_source_is_named(bare: Runtime) -> None:
    source = FakeSource(OPEN)
    source.failure = UNAVAILABLE
    down = Runtime(test_settings(bare.names.prefix, redis={"url": "redis://127.0.0.1:1/0"}))
    assert cache_over(down, source).find("summer") == Missing("fake", "unavailable")


def test_switched_off_or_without_an_address_every_question_goes_to_the_source(bare: Runtime) -> None:
    bare.campaigns.create(OPEN)
    for sections in ({"cache": {"enabled": False}}, {"redis": {"url": None}}):
        off = Runtime(test_settings(bare.names.prefix, **sections))
        assert off.campaign_store is None
        assert [off.campaign_cache.find("summer-tour") for _ in range(2)] == [from_source(OPEN)] * 2
        off.campaign_cache.forget(OPEN)
    assert not list(bare.redis_client.scan_iter())


def test_a_campaign_that_breaks_the_contract_is_missing_with_its_error(bare: Runtime) -> None:
    bare.database["campaigns"].insert_one({"_id": "broken", "slug": "broken", "status": "SOON"})
    found = bare.campaign_cache.find("broken")
    assert isinstance(found, Missing) and found.dependency == "mongo" and "campaign broken: " in found.error


def test_a_refused_login_is_logged_once_and_the_source_answers(bare: Runtime) -> None:
    class Refusing:
        def look(self, _slug_or_id: str) -> object:
            raise UsageError("Redis refuses the login")

    cache = CampaignCache(FakeSource(OPEN), Refusing(), wait_seconds=20)  # type: ignore[arg-type]
    with capture_logs() as lines:
        assert [cache.find("summer") for _ in range(3)] == [from_source(OPEN)] * 3
    assert len(lines) == 1


@pytest.mark.parametrize("text", ["", "  ", "\ud800"])
def test_an_impossible_name_is_unknown_without_a_call(bare: Runtime, text: str) -> None:
    source = FakeSource()
    assert cache_over(bare, source).find(text) == Known(None, FactSource.REQUEST)
    assert not source.reads


@pytest.mark.parametrize("text", ["slug:summer-tour", "cache:changed", "summer\n", "é", "%s", "a" * 100_000])
def test_no_text_leads_to_a_key_of_another_kind(bare: Runtime, text: str) -> None:
    source = FakeSource(OPEN)
    cache = cache_over(bare, source)
    cache.find("summer-tour")
    assert cache.find(text).value is None  # type: ignore[union-attr]
    assert cache.find("summer-tour") == from_cache(OPEN)
    assert all(len(key) < 1000 for key in bare.redis_client.scan_iter())


def test_a_planted_campaign_without_a_ttl_is_honoured(bare: Runtime) -> None:
    source, store = FakeSource(OPEN), store_of(bare)
    cache = cache_over(bare, source)
    planted = campaign(name="Planted")
    bare.redis_client.set(store.key("summer"), orjson.dumps(as_cached(planted)))
    bare.redis_client.set(store.slug_key("summer-tour"), "summer")
    assert cache.find("summer") == cache.find("summer-tour") == from_cache(planted)
    # As it is in the collection it is valid too.
    bare.redis_client.set(store.key("summer"), orjson.dumps(planted.as_document()))
    assert cache.find("summer") == from_cache(planted)
    assert not source.reads
    cache.forget(planted)
    assert cache.find("summer") == from_source(OPEN)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff\xfe\x00",
        b"not json",
        b"null",
        b'["summer"]',
        b"{}",
        b'{"campaignId": "winter", "status": "OPEN"}',
        orjson.dumps({**as_cached(campaign("winter")), "_id": "summer"}),
        orjson.dumps({**as_cached(OPEN), "status": "zoe@example.com"}),
        None,
    ],
)
def test_a_damaged_value_is_absent_logged_without_its_content_and_rewritten(
    bare: Runtime, value: bytes | None
) -> None:
    source, key = FakeSource(OPEN), store_of(bare).key("summer")
    if value is None:
        bare.redis_client.hset(key, "field", "zoe@example.com")
    else:
        bare.redis_client.set(key, value)
    cache = cache_over(bare, source)
    with capture_logs() as lines:
        assert cache.find("summer") == from_source(OPEN)
    assert {line["event"] for line in lines} == {"damaged campaign in the cache"}
    assert lines[0]["key"] == key and "example.com" not in repr(lines)
    assert cache.find("summer") == from_cache(OPEN)


def test_a_damaged_slug_is_absent_and_rewritten(bare: Runtime) -> None:
    for value in (b"\xff", b"no id at all", b"unknown"):
        bare.redis_client.set(store_of(bare).slug_key("summer-tour"), value)
        cache = cache_over(bare, FakeSource(OPEN))
        assert cache.find("summer-tour") == from_source(OPEN)
        assert cache.find("summer-tour") == from_cache(OPEN)


def test_a_slug_that_went_to_another_campaign_leads_there(bare: Runtime) -> None:
    source = FakeSource(OPEN)
    cache = cache_over(bare, source)
    cache.find("summer-tour")
    source.campaigns = [campaign(slug="old-tour"), campaign("autumn", "summer-tour")]
    bare.redis_client.delete(store_of(bare).key("summer"))
    assert cache.find("summer").value == source.campaigns[0]  # type: ignore[union-attr]
    assert cache.find("summer-tour") == from_source(source.campaigns[1])


def test_an_id_goes_before_the_same_slug(bare: Runtime) -> None:
    one, other = campaign("one", "two"), campaign("two", "three")
    source = FakeSource(one, other)
    cache = cache_over(bare, source)
    cache.find("one")
    assert cache.find("two") == from_source(other)
    bare.redis_client.delete(store_of(bare).key("two"))
    assert cache.find("two") == from_source(other)
