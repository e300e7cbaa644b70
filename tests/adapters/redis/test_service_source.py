"""The Campaign Service instead of MongoDB, where an environment says so."""

from __future__ import annotations

from regworkers_core.adapters.campaign_cache import ServiceSource
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.eligibility import FactSource, Known, Missing
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings
from tests.adapters.redis.support import campaign, from_cache, make_stale
from tests.support.services import served_to
from tests.support.waiting import wait_until

OPEN = campaign()


def asking_the_service(settings: Settings) -> Runtime:
    cache = settings.cache.model_copy(update={"campaign_source": "service"})
    return Runtime(settings.model_copy(update={"cache": cache}))


def from_service(value: Campaign | None) -> Known[Campaign | None]:
    return Known(value, FactSource.SERVICE)


def test_campaigns_come_from_the_service_by_id_and_by_slug_and_are_cached(bare: Runtime) -> None:
    bare.campaigns.create(OPEN)
    with served_to(bare) as served:
        runtime = asking_the_service(served.runtime.settings)
        assert runtime.campaign_cache.find("winter") == from_service(None)
        assert runtime.campaign_cache.find("summer-tour") == from_service(OPEN)
        assert runtime.campaign_cache.find("summer-tour") == from_cache(OPEN)
        runtime.campaign_cache.forget(OPEN)
        assert runtime.campaign_cache.find("summer") == from_service(OPEN)
        assert runtime.campaign_cache.find("summer") == from_cache(OPEN)


def test_an_unavailable_service_leaves_the_stale_entry_and_is_named_without_one(bare: Runtime) -> None:
    bare.campaigns.create(OPEN)
    with served_to(bare) as served:
        settings = served.runtime.settings
        asking_the_service(settings).campaign_cache.find("summer")
    retry = settings.retry.model_copy(update={"attempts": 1})
    runtime = asking_the_service(settings.model_copy(update={"retry": retry}))
    make_stale(bare)
    assert runtime.campaign_cache.find("summer") == from_cache(OPEN, fresh=False)
    runtime.campaign_cache.forget(OPEN)
    found = runtime.campaign_cache.find("summer")
    assert isinstance(found, Missing) and found.dependency == "service-campaign"


def test_a_service_without_an_address_is_missing_and_says_what_to_set(bare: Runtime) -> None:
    runtime = asking_the_service(bare.settings)
    runtime.campaign_cache.forget(OPEN)
    found = runtime.campaign_cache.find("summer")
    assert isinstance(found, Missing) and found.dependency == "service-campaign"
    assert "REGWORKERS_SERVICES__CAMPAIGN__BASE_URL" in found.error


def test_a_campaign_that_only_mongodb_knows_is_not_the_services(bare: Runtime) -> None:
    asked: list[str] = []

    class Empty:
        def get(self, campaign_id: str) -> None:
            asked.append(campaign_id)

    class Services:
        campaign = Empty()

    bare.campaigns.create(OPEN)
    source = ServiceSource(Services(), bare.campaigns)  # type: ignore[arg-type]
    assert source.find("summer") is source.find("summer-tour") is None
    assert asked == ["summer", "summer-tour", "summer"]


def test_a_refresh_from_the_service_takes_the_place_of_the_stale_entry(bare: Runtime) -> None:
    bare.campaigns.create(OPEN)
    with served_to(bare) as served:
        cache = asking_the_service(served.runtime.settings).campaign_cache
        cache.find("summer")
        make_stale(bare)
        bare.database["campaigns"].update_one({"_id": "summer"}, {"$set": {"name": "Renamed"}})
        wait_until(lambda: cache.find("summer") == from_cache(campaign(name="Renamed")))
