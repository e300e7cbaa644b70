"""How long entries live, and that a campaign comes out of Redis as it went in."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regworkers_core.adapters.campaign_cache import CampaignCache
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.campaign_reader import read_campaign
from regworkers_core.runtime import Runtime
from tests.adapters.redis.support import FakeSource, cache_over, campaign, from_cache, from_source, store_of
from tests.support.runtimes import test_settings

TIME_MARGIN_SECONDS = 5.0


def lives(runtime: Runtime, key: str) -> float:
    return float(runtime.redis_client.pttl(key)) / 1000


def test_the_ttl_is_jittered_by_ten_per_cent_and_the_stale_time_comes_on_top(bare: Runtime) -> None:
    store, cache = store_of(bare), bare.settings.cache
    found = []
    for number in range(60):
        each = campaign(f"c{number}", f"s{number}")
        assert store.write(each.slug, each, store.look(each.slug))
        found.append(lives(bare, store.key(each.campaign_id)) - cache.stale_seconds)
        assert lives(bare, store.slug_key(each.slug)) > cache.stale_seconds
    # Whatever the machine did between the write and the look.
    assert all(cache.ttl_seconds * 0.9 - TIME_MARGIN_SECONDS < each for each in found)
    assert all(each <= cache.ttl_seconds * 1.1 for each in found)
    assert len({round(each) for each in found}) > 5


def test_the_jitter_uses_its_whole_range(bare: Runtime) -> None:
    ranges: list[tuple[float, float]] = []
    store = store_of(bare)
    store._uniform = lambda low, high: ranges.append((low, high)) or high  # type: ignore[func-returns-value]
    store.write("summer-tour", campaign(), store.look("summer-tour"))
    assert ranges == [(0.9, 1.1)]
    assert 660 < lives(bare, store.key("summer")) <= 666


def test_a_negative_answer_is_cached_for_a_short_time(bare: Runtime) -> None:
    store = store_of(bare)
    store.write("winter", None, store.look("winter"))
    assert 0 < lives(bare, store.slug_key("winter")) <= bare.settings.cache.negative_seconds * 1.1


def test_an_entry_is_fresh_while_more_than_its_stale_time_is_left(bare: Runtime) -> None:
    store, key = store_of(bare), store_of(bare).key("summer")
    store.write("summer-tour", campaign(), store.look("summer-tour"))
    stale = int(bare.settings.cache.stale_seconds * 1000)
    for left, fresh in ((stale + 20_000, True), (stale - 1, False)):
        bare.redis_client.pexpire(key, left)
        assert store.look("summer").fresh is store.look("summer-tour").fresh is fresh


@pytest.mark.parametrize("name", ["summer", "summer-tour"])
@pytest.mark.parametrize("known", [False, True])
def test_what_was_read_before_a_change_is_not_written_after_it(bare: Runtime, name: str, known: bool) -> None:
    store, each = store_of(bare), campaign()
    if known:
        store.write("summer-tour", each, store.look("summer-tour"))
    before = store.look(name)
    store.forget([each.campaign_id], [each.slug])
    assert not store.write(name, each, before)
    assert not store.write(name, None, before)
    assert not store.look(name).known
    now = store.look(name)
    assert now.state != before.state
    store.write(name, each, now)
    # Where the slug leads was not known, so its campaign was not read before the source.
    assert store.look(name).known or store.write(name, each, store.look(name))
    assert store.look(name).campaign == each


def test_a_key_is_not_written_from_a_read_of_the_source_that_outlasts_the_mark_of_a_change(
    bare: Runtime,
) -> None:
    store, now = store_of(bare), [0.0]
    store._monotonic = lambda: now[0]
    before = store.look("summer")
    now[0] = 31.0
    assert not store.write("summer", campaign(), before)
    assert store.write("summer", campaign(), store.look("summer"))


def test_a_campaign_that_is_gone_leaves_no_room_for_an_earlier_reader(bare: Runtime) -> None:
    store, each = store_of(bare), campaign()
    early = store.look("summer")
    store.write("summer", each, early)
    store.write("summer", None, store.look("summer"))
    assert store.look("summer").campaign is None and store.look("summer").known
    assert not store.write("summer", each, early)


def test_asked_by_id_an_entry_renews_the_key_of_its_slug_and_makes_none(bare: Runtime) -> None:
    store, each = store_of(bare), campaign()
    key = store.slug_key(each.slug)
    store.write("summer", each, store.look("summer"))
    assert bare.redis_client.get(key) is None
    store.write("summer-tour", each, store.look("summer-tour"))
    bare.redis_client.pexpire(key, 30_000)
    store.write("summer", each, store.look("summer"))
    assert lives(bare, key) > bare.settings.cache.stale_seconds


class Counting:
    """A client that counts round trips."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.round_trips = 0

    def pipeline(self, **options: Any) -> Any:
        self.round_trips += 1
        return self._client.pipeline(**options)


def test_a_slug_takes_one_round_trip_once_it_is_known_where_it_leads(bare: Runtime) -> None:
    store, each = store_of(bare), campaign()
    store.write("summer-tour", each, store.look("summer-tour"))
    client = Counting(bare.redis_client)
    store._connect = lambda: client
    store._led_to.clear()
    trips = []
    for _ in range(3):
        before = client.round_trips
        assert store.look("summer-tour").campaign == each
        trips.append(client.round_trips - before)
    assert trips == [2, 1, 1]


def test_where_a_slug_led_before_never_decides_what_it_means_now(bare: Runtime) -> None:
    store, first, second = store_of(bare), campaign("summer"), campaign("other", status="CLOSED")
    store.write("summer-tour", first, store.look("summer-tour"))
    assert store.look("summer-tour").campaign == first
    store.write("summer-tour", second, store.look("summer-tour"))
    assert store.look("summer-tour").campaign == second
    bare.redis_client.delete(store.key("other"))
    assert not store.look("summer-tour").known
    store.write("summer-tour", None, store.look("summer-tour"))
    held = store.look("summer-tour")
    assert held.known and held.campaign is None
    bare.redis_client.delete(store.slug_key("summer-tour"))
    assert not store.look("summer-tour").known, "the first campaign's own key still exists"


def test_a_change_of_the_stored_text_is_seen_at_once(bare: Runtime) -> None:
    store, open_, closed = store_of(bare), campaign(), campaign(status="CLOSED")
    for each in (open_, closed, open_):
        store.write("summer", each, store.look("summer"))
        assert store.look("summer").campaign == each
    bare.redis_client.set(store.key("summer"), b"{")
    assert not store.look("summer").known


@pytest.fixture(scope="module")
def one() -> Iterator[Runtime]:
    """For hypothesis, whose examples share it."""
    runtime = Runtime(test_settings(f"c{uuid.uuid4().hex[:8]}-"))
    yield runtime
    runtime.redis_client.flushdb()


ids = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
market_ids = ids.filter(lambda each: each != "-")
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
counts = st.integers(0, 2**31 - 1)
MOMENT = "2026-05-05T05:05:05.005Z"


@st.composite
def campaigns(draw: st.DrawFn) -> Campaign:
    def market(market_id: str) -> dict[str, Any]:
        capacity = draw(st.integers(2, 2**31 - 1))
        reserves = [{"segment": "loyal", "seats": draw(st.integers(1, capacity))}]
        some = draw(st.booleans())
        return {
            "marketId": market_id,
            "name": draw(texts),
            "capacity": capacity,
            "reserves": reserves if some else [],
        }

    transition = {
        "from": "DRAFT",
        "to": "OPEN",
        "at": MOMENT,
        "reason": draw(texts),
        "runId": "r",
        "token": 1,
    }
    return read_campaign(
        {
            "_id": draw(ids),
            "slug": draw(texts),
            "name": draw(texts),
            "status": draw(st.sampled_from(CampaignStatus)).value,
            "opensAt": "2026-01-01T00:00:00.000Z",
            "closesAt": "2099-01-01T00:00:00.000Z",
            "markets": [
                market(each) for each in draw(st.lists(market_ids, min_size=1, max_size=4, unique=True))
            ],
            "autoDraw": draw(st.booleans()),
            "eligibility": {"inviteOnly": draw(st.booleans()), "regions": draw(st.lists(ids, max_size=2))},
            "draw": {
                "winsPerUnit": draw(st.integers(1, 9)),
                "waitlistSize": draw(st.none() | counts),
                "commitment": draw(st.none() | st.just("ab" * 32)),
            },
            "transitions": draw(st.sampled_from([[], [transition]])),
            "fence": draw(counts),
        }
    )


@settings(max_examples=50)
@given(each=campaigns())
def test_with_and_without_the_cache_a_campaign_is_the_same(one: Runtime, each: Campaign) -> None:
    # What an example before left under these names.
    one.redis_client.flushdb()
    source = FakeSource(each)
    cached, bare_source = cache_over(one, source), CampaignCache(source, None, wait_seconds=20)
    for name in (each.slug, each.campaign_id):
        assert bare_source.find(name) == from_source(each)
        assert cached.find(name) in (from_source(each), from_cache(each))
        assert cached.find(name) == from_cache(each)
