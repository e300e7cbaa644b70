"""`regworkers campaign cache show|clear|compare`."""

from __future__ import annotations

import re
from typing import Any

import orjson

from regworkers_core.adapters.campaign_store import as_cached
from regworkers_core.runtime import Runtime
from tests.adapters.redis.support import campaign, make_stale, store_of
from tests.support.runtimes import test_settings
from tests.support.services import served_to
from tests.support.terminal import Answer, regworkers

OPEN = campaign()


def cache(runtime: Runtime, *words: str, **environment: str) -> Answer:
    return regworkers(runtime, "campaign", "cache", *words, "--format", "json", **environment)


def keys(answer: Answer) -> dict[str, Any]:
    return {each["key"].partition("campaign:")[2]: each for each in answer.document["keys"]}


def plant(runtime: Runtime, **fields: Any) -> None:
    """Into Redis, past everything."""
    planted = orjson.dumps({**as_cached(campaign(**fields)), "password": "hunter2"})
    runtime.redis_client.set(store_of(runtime).key("summer"), planted, px=650_000)


def test_show_names_the_keys_their_time_left_and_what_they_say(bare: Runtime) -> None:
    bare.campaigns.create(OPEN)
    nothing = cache(bare, "show", "summer")
    assert nothing.code == 0 and {each["state"] for each in keys(nothing).values()} == {"absent"}
    bare.campaign_cache.find("summer-tour")
    for name in ("summer", "summer-tour"):
        found = keys(cache(bare, "show", name))
        assert set(found) == {"summer", "slug:summer-tour"}
        assert found["summer"]["state"] == found["slug:summer-tour"]["state"] == "fresh"
        assert found["summer"]["content"] == as_cached(OPEN)
        assert found["slug:summer-tour"]["content"] == "summer"
        assert 600 < found["summer"]["leftSeconds"] <= 666
    make_stale(bare)
    assert keys(cache(bare, "show", "summer"))["summer"]["state"] == "stale"


def test_show_finds_what_only_redis_knows_and_shows_no_field_that_is_not_a_campaigns(bare: Runtime) -> None:
    plant(bare)
    bare.redis_client.set(store_of(bare).slug_key("summer-tour"), "summer")
    for name in ("summer", "summer-tour"):
        answer = cache(bare, "show", name)
        assert set(keys(answer)) == {"summer", "slug:summer-tour"}
        assert keys(answer)["slug:summer-tour"]["leftSeconds"] is None
        assert "hunter2" not in answer.stdout + answer.stderr
    text = regworkers(bare, "campaign", "cache", "show", "summer")
    assert text.code == 0 and re.search(r"6\d\d s", text.stdout) and "Berlin" in text.stdout
    assert "hunter2" not in text.stdout


def test_show_says_what_is_damaged_without_its_content(bare: Runtime) -> None:
    bare.redis_client.set(store_of(bare).key("summer"), "hunter2")
    answer = cache(bare, "show", "summer")
    assert keys(answer)["summer"]["state"] == "damaged" and keys(answer)["summer"]["error"] == "not JSON"
    assert "hunter2" not in answer.stdout + answer.stderr


def test_clear_deletes_both_keys_and_says_what_was_there(bare: Runtime) -> None:
    bare.campaigns.create(OPEN)
    for name in ("summer", "summer-tour"):
        bare.campaign_cache.find("summer-tour")
        answer = cache(bare, "clear", name)
        assert answer.code == 0 and answer.document["cleared"] is True
        assert {each["state"] for each in keys(answer).values()} == {"fresh"}
        assert {each["state"] for each in keys(cache(bare, "show", name)).values()} == {"absent"}
    again = cache(bare, "clear", "summer")
    assert again.code == 0 and again.document["cleared"] is False


def test_clear_as_text_names_the_keys_and_not_what_was_in_them(bare: Runtime) -> None:
    bare.campaigns.create(OPEN)
    bare.campaign_cache.find("summer-tour")
    text = regworkers(bare, "campaign", "cache", "clear", "summer").stdout
    assert "Berlin" not in text
    (line,) = text.splitlines()
    assert line.startswith("deleted ") and line.endswith("; the next check reads the source")
    assert store_of(bare).key("summer") in line and store_of(bare).slug_key("summer-tour") in line
    again = regworkers(bare, "campaign", "cache", "clear", "summer")
    assert (again.code, again.stdout) == (0, "there was nothing to delete\n")


def test_compare_says_when_no_source_answered(bare: Runtime) -> None:
    settings = test_settings(
        bare.names.prefix, mongo={"uri": "mongodb://127.0.0.1:1", "server_selection_timeout_seconds": 0.05}
    )
    for redis in ({}, {"REGWORKERS_REDIS__URL": "redis://127.0.0.1:1/0"}):
        answer = regworkers(Runtime(settings), "campaign", "cache", "compare", "summer", **redis)
        assert answer.code == 1
        assert "no source answered" in answer.stdout and "no difference" not in answer.stdout


def test_clear_by_id_finds_the_key_of_the_slug_alone(bare: Runtime) -> None:
    bare.campaigns.create(OPEN)
    bare.campaign_cache.find("summer-tour")
    bare.redis_client.delete(store_of(bare).key("summer"))
    found = keys(cache(bare, "clear", "summer"))
    assert {name: each["state"] for name, each in found.items()} == {
        "summer": "absent",
        "slug:summer-tour": "fresh",
    }
    assert store_of(bare).stored(store_of(bare).slug_key("summer-tour")).value is None


def test_clear_ends_a_negative_entry(bare: Runtime) -> None:
    bare.campaign_cache.find("winter")
    assert keys(cache(bare, "clear", "winter"))["slug:winter"]["state"] == "says there is none"
    assert not store_of(bare).look("winter").known


def test_compare_finds_all_places_alike_and_an_empty_cache_no_difference(bare: Runtime) -> None:
    bare.campaigns.create(OPEN)
    with served_to(bare) as served:
        for state in ("empty", "found"):
            for name in ("summer", "summer-tour"):
                answer = cache(served.runtime, "compare", name)
                assert (answer.code, answer.document["same"], answer.document["differences"]) == (0, True, [])
                sides = answer.document["sides"]
                assert sides["redis"]["state"] == state
                assert sides["mongo"]["campaign"] == sides["service"]["campaign"]
                assert sides["mongo"]["campaign"]["campaignId"] == "summer"
            bare.campaign_cache.find("summer-tour")


def test_compare_marks_what_differs_and_names_the_command_that_helps(bare: Runtime) -> None:
    bare.campaigns.create(OPEN)
    plant(bare, name="Old", markets=[{"marketId": "berlin", "name": "Berlin", "capacity": 2}])
    answer = cache(bare, "compare", "summer")
    assert answer.code == 1 and set(answer.document["sides"]) == {"redis", "mongo"}
    assert answer.document["differences"] == [
        {"field": "name", "redis": "Old", "mongo": OPEN.name},
        {"field": "markets.berlin.capacity", "redis": 2, "mongo": 3},
    ]
    assert "campaign cache clear summer" in answer.document["advice"]
    text = regworkers(bare, "campaign", "cache", "compare", "summer")
    marked = [line for line in text.stdout.splitlines() if "≠" in line]
    assert text.code == 1 and len(marked) == 2 and "markets.berlin" in marked[1]
    assert "hunter2" not in text.stdout + answer.stdout


def test_compare_finds_a_campaign_that_is_in_one_place_only(bare: Runtime) -> None:
    plant(bare)
    for name in ("summer", "summer-tour"):
        bare.redis_client.set(store_of(bare).slug_key("summer-tour"), "summer")
        answer = cache(bare, "compare", name)
        assert answer.code == 1
        assert answer.document["differences"] == [{"field": "exists", "redis": "yes", "mongo": "no"}]
    bare.redis_client.delete(store_of(bare).key("summer"))
    bare.redis_client.set(store_of(bare).slug_key("summer"), "", px=5000)
    bare.campaigns.create(OPEN)
    answer = cache(bare, "compare", "summer")
    assert answer.document["differences"] == [{"field": "exists", "redis": "no", "mongo": "yes"}]
    assert answer.code == 1


def test_compare_names_unavailable_sources_and_compares_the_others(bare: Runtime) -> None:
    bare.campaigns.create(OPEN)
    bare.campaign_cache.find("summer-tour")
    with served_to(bare) as served:
        settings = served.runtime.settings
    settings = test_settings(
        bare.names.prefix,
        services=settings.services.model_dump(),
        mongo={"uri": "mongodb://127.0.0.1:1", "server_selection_timeout_seconds": 0.05},
    )
    answer = cache(Runtime(settings), "compare", "summer-tour")
    sides = answer.document["sides"]
    assert answer.code == 1 and answer.document["differences"] == []
    assert {name: side["state"] for name, side in sides.items()} == {
        "redis": "found",
        "mongo": "unreachable",
        "service": "unreachable",
    }
    assert sides["service"]["error"].startswith("service-campaign: ")
    answer = cache(bare, "compare", "summer", REGWORKERS_REDIS__URL="redis://127.0.0.1:1/0")
    assert answer.code == 1 and answer.document["sides"]["redis"]["state"] == "unreachable"
    assert answer.document["sides"]["mongo"]["state"] == "found"


def test_compare_says_which_place_holds_something_unusable(bare: Runtime) -> None:
    bare.campaigns.create(OPEN)
    bare.redis_client.set(store_of(bare).key("summer"), "hunter2")
    answer = cache(bare, "compare", "summer")
    assert answer.code == 1 and answer.document["sides"]["redis"]["state"] == "unusable"
    assert "clear summer" in answer.document["advice"] and "hunter2" not in answer.stdout + answer.stderr


def test_a_campaign_of_nowhere_and_a_cache_that_is_off_are_usage_errors(bare: Runtime) -> None:
    for word in ("compare", "show"):
        answer = cache(bare, word, "winter")
        assert (answer.code, answer.stdout) == (2, "")
        assert "no campaign 'winter' in redis, mongo" in answer.stderr
    for word in ("show", "clear"):
        answer = cache(bare, word, "winter", REGWORKERS_CACHE__ENABLED="false")
        assert (answer.code, answer.stdout) == (2, "") and "cache.enabled" in answer.stderr
        answer = cache(bare, word, "winter", REGWORKERS_REDIS__URL="redis://127.0.0.1:1/0")
        assert (answer.code, answer.stdout) == (2, "") and "redis" in answer.stderr
