"""What the four services say, read into types; what does not fit the contract is an outage, never an answer."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from regworkers_core.domain.claim import User
from regworkers_core.domain.reasons import PermanentFailure, TransientFailure, UsageError
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings
from tests.adapters.http.servers import USER, Scripted, answer
from tests.support.entries import item, key
from tests.support.services import NAMES, Served, with_services

ENTRY = item(key("e1"), PK=None, SK=None, entityType=None, needsReplication=None)


def put_campaign(services: Served) -> None:
    services.runtime.database["campaigns"].insert_one(
        {
            "_id": "summer",
            "slug": "summer-2026",
            "status": "OPEN",
            "opensAt": "2026-01-01T00:00:00.000Z",
            "closesAt": "2099-01-01T00:00:00.000Z",
            "eligibility": {"inviteOnly": True, "inviteTypes": ["email"]},
            "markets": [{"marketId": "berlin", "capacity": 3}, {"marketId": "paris", "capacity": 2}],
        }
    )


def test_an_entry_comes_with_its_order_and_without_the_replicas_bookkeeping(services: Served) -> None:
    stored = {"_id": "summer:e1", **ENTRY, "version": 3, "_replication": {"version": 3}}
    services.runtime.database["entries"].insert_one(stored)
    found = services.runtime.services.entry.get("summer", "e1")
    assert found is not None and found.key == key("e1")
    assert found.order == (ENTRY["createdAt"], 3, ENTRY["updatedAt"])
    assert found.fields == {**ENTRY, "version": 3}


def test_a_removed_entry_is_not_there(services: Served) -> None:
    tombstone = {
        "_id": "summer:e1",
        "campaignId": "summer",
        "entryId": "e1",
        "deletedAt": "2026-01-01T00:00:00.000Z",
    }
    services.runtime.database["entries"].insert_one(tombstone)
    assert services.runtime.services.entry.get("summer", "e1") is None


def test_a_user_comes_with_what_the_service_knows_and_prints_none_of_it(services: Served) -> None:
    services.users.insert_many(
        [
            {
                "_id": "gu-1",
                "verifiedPhone": True,
                "blocked": False,
                "region": "DE-BE",
                "birthDate": "2001-12-31",
            },
            {"_id": "gu-2", "verifiedPhone": False, "blocked": True},
        ]
    )
    get = services.runtime.services.user.get
    assert get("gu-1") == User(True, False, "DE-BE", date(2001, 12, 31))
    assert get("gu-2") == User(False, True)
    assert repr(get("gu-1")) == "User()"


def test_codes_are_counted_by_market_and_only_those_that_are_available(services: Served) -> None:
    put_campaign(services)
    services.runtime.database["codes"].insert_many(
        {"_id": f"{market}{number}", "campaignId": campaign, "marketId": market, "status": status}
        for number, (campaign, market, status) in enumerate(
            [
                ("summer", "berlin", "AVAILABLE"),
                ("summer", "berlin", "AVAILABLE"),
                ("summer", "berlin", "ASSIGNED"),
                ("summer", "berlin", "VOID"),
                ("winter", "berlin", "AVAILABLE"),
            ]
        )
    )
    assert services.runtime.services.code.available("summer") == {"berlin": 2, "paris": 0}


def test_a_campaign_is_that_of_the_database(services: Served) -> None:
    put_campaign(services)
    campaign = services.runtime.services.campaign.get("summer")
    assert campaign is not None and campaign == services.runtime.campaigns.get("summer")


NOT_THE_SERVICE: dict[str, tuple[object, str]] = {
    "a default page": (b"default backend - 404", "text/plain"),
    "a page": (b"<html>Not here</html>", "text/html; charset=utf-8"),
    "a gateway's JSON": ({"message": "no Route matched with those values"}, "application/json"),
    "a framework without the path": ({"detail": "Not Found"}, "application/json"),
    "an empty text": ({"detail": " "}, "application/json"),
    "the right words in a page": ({"detail": "no such user"}, "text/html"),
    "broken JSON": (b'{"detail": "no su', "application/json"),
    "a list": ([], "application/json"),
    "nothing": (b"", "application/json"),
}


@pytest.mark.parametrize("status", [404, 400])
@pytest.mark.parametrize(("body", "content_type"), NOT_THE_SERVICE.values(), ids=NOT_THE_SERVICE)
def test_a_refusal_that_is_not_the_services_own_says_nothing_about_a_fan(
    services: Served, scripted: Scripted, body: object, content_type: str, status: int
) -> None:
    if status == 400 and body == {"detail": "Not Found"}:
        body = {"detail": "Bad Request"}
    scripted.answers = [answer(status, body, content_type=content_type)]
    runtime = with_services(services.runtime, scripted.url)
    with pytest.raises(TransientFailure, match=rf"status {status} .*services\.user\.baseUrl"):
        runtime.services.user.get("gu-1")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/problem+json"])
def test_the_services_own_404_is_an_answer(services: Served, scripted: Scripted, content_type: str) -> None:
    scripted.answers = [answer(404, {"detail": "no such user"}, content_type=content_type)]
    assert with_services(services.runtime, scripted.url).services.user.get("gu-1") is None


def test_every_service_has_its_own_health(services: Served) -> None:
    assert services.runtime.probe(*(f"service-{name}" for name in NAMES)) is None


def test_a_page_is_no_health(services: Served, scripted: Scripted) -> None:
    scripted.answers = [answer(200, b"<html>Please log in</html>", content_type="text/html; charset=utf-8")]
    failure = with_services(services.runtime, scripted.url).failure_of("service-user")
    assert failure is not None and "a page" in failure.error


@pytest.mark.parametrize("id_", ["a/b", "?x=1#y", "%2F", "ü ß", "a+b&c", ".hidden", "..x", "日本", "a//b"])
def test_an_id_arrives_as_it_is(services: Served, id_: str) -> None:
    services.users.insert_one({"_id": id_, "verifiedPhone": True, "blocked": False})
    assert services.runtime.services.user.get(id_) == User(True, False)
    services.runtime.database["entries"].insert_one(
        {"_id": f"summer:{id_}", "campaignId": "summer", "entryId": id_}
    )
    assert services.runtime.services.entry.get("summer", id_) is not None


@pytest.mark.parametrize("id_", ["", ".", "..", "x" * 2000, "\ud800"])
def test_an_id_that_no_path_can_carry_is_refused_before_anything_is_sent(
    services: Served, id_: str, scripted: Scripted
) -> None:
    runtime = with_services(services.runtime, scripted.url)
    with pytest.raises(PermanentFailure) as failure:
        runtime.services.user.get(id_)
    assert scripted.asked == [] and (len(id_) < 3 or id_ not in str(failure.value))


def ask(runtime: Runtime, name: str) -> Any:
    """The one thing that each service is asked, with ids that the documents below carry."""
    services = runtime.services
    return {
        "entry": lambda: services.entry.get("summer", "e1"),
        "user": lambda: services.user.get("gu-1"),
        "code": lambda: services.code.available("summer"),
        "campaign": lambda: services.campaign.get("summer"),
    }[name]()


WRONG: list[tuple[str, object]] = [
    ("user", []),
    ("user", None),
    ("user", {}),
    ("user", {**USER, "globalUserId": "gu-2"}),
    ("user", {"globalUserId": "gu-1", "verifiedPhone": True}),
    ("user", {**USER, "blocked": "no"}),
    ("user", {**USER, "verifiedPhone": 1}),
    ("user", {**USER, "region": 7}),
    ("user", {**USER, "birthDate": "31.12.2001"}),
    ("user", b'{"globalUserId": "gu-1", "verif'),
    ("user", b"<html>"),
    ("user", b"\xff\xfe"),
    ("entry", {"campaignId": "winter", "entryId": "e1"}),
    ("entry", {"campaignId": "summer", "entryId": "e2"}),
    ("code", {"campaignId": "winter", "available": {}}),
    ("code", {"campaignId": "summer"}),
    ("code", {"campaignId": "summer", "available": {"berlin": -1}}),
    ("code", {"campaignId": "summer", "available": {"berlin": True}}),
    ("code", {"campaignId": "summer", "available": {"berlin": "many"}}),
    ("campaign", {"_id": "summer"}),
    ("campaign", {"campaignId": "winter"}),
]


@pytest.mark.parametrize(("name", "document"), WRONG, ids=[f"{name}-{shape}" for name, shape in WRONG])
def test_an_answer_that_breaks_the_contract_is_an_outage(
    services: Served, scripted: Scripted, name: str, document: object
) -> None:
    scripted.answers = [answer(200, document)]
    with pytest.raises(TransientFailure, match="breaks the contract") as failure:
        ask(with_services(services.runtime, scripted.url), name)
    assert "31.12" not in str(failure.value) and "gu-" not in str(failure.value)


def test_a_campaign_that_breaks_the_data_contract_is_named_with_its_field(
    services: Served, scripted: Scripted
) -> None:
    scripted.answers = [answer(200, {"campaignId": "summer", "status": "ASLEEP"})]
    with pytest.raises(UsageError, match="campaign summer: opensAt"):
        ask(with_services(services.runtime, scripted.url), "campaign")


@pytest.mark.parametrize("name", NAMES)
def test_a_service_without_an_address_is_missed_only_when_it_is_asked_for(name: str) -> None:
    runtime = Runtime(Settings(environment="qa", services={}, selection={"write_grace_seconds": 30}))  # type: ignore[arg-type]
    services = runtime.services
    with pytest.raises(UsageError, match=f"the {name} service is not configured: .*{name.upper()}__BASE_URL"):
        getattr(services, name)
