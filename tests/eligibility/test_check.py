"""A check from end to end on real servers, as its callers ask."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest

from regworkers_core.domain.claim import InviteType, User
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import UsageError
from regworkers_core.eligibility.check import check_eligibility
from regworkers_core.eligibility.rules import rule_set
from regworkers_core.observability.metrics import UNKNOWN_VERDICTS
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.opening import log_open
from regworkers_core.settings import Settings
from tests.adapters.http.servers import Scripted, answer
from tests.eligibility.world import ask, campaign, check, codes, create, invite, one
from tests.support.drains import replicate_all
from tests.support.entries import document, key, put, remove
from tests.support.shared import purge
from tests.support.typing_in import Typed

pytestmark = pytest.mark.namespace("module")


def test_the_answer_has_the_hash_of_what_the_log_has_of_the_campaign(servers: Runtime) -> None:
    hashes = set()
    for name in ("one", "two"):
        create(servers, name, slug=name)
        log_open(servers)
        opened = servers.campaigns.require(name).opened
        assert opened is not None and one(servers, name)["openedHash"] == opened.hash
        hashes.add(opened.hash)
    assert len(hashes) == 2, "a receipt of another campaign has another hash"


def test_the_answer_has_status_reasons_sources_and_missing_facts(servers: Runtime) -> None:
    create(servers, slug="summer-tour")
    answer = one(servers, "summer-tour", correlationId="corr", unit=None)
    assert answer == {
        "status": "ELIGIBLE",
        "eligible": True,
        "reasons": [],
        "primaryReason": None,
        "ruleSet": rule_set(),
        "asOf": answer["asOf"],
        "openedHash": None,
        "sources": {
            "campaign": {"source": "database", "fresh": True},
            "duplicates": {"source": "database", "fresh": True},
        },
        "missing": [],
        "correlationId": "corr",
    }
    assert one(servers, "summer-tour")["sources"]["campaign"]["source"] == "cache"


def test_a_thousand_checks_are_answered_in_their_order(servers: Runtime) -> None:
    create(servers)
    put(servers, key("e7"), email="fan7@example.com")
    replicate_all(servers)
    checks = [check(email=f"fan{number}@example.com") for number in range(999)]
    answers = ask(servers, *checks, check("nowhere"))
    assert [codes(answer) for answer in answers[:7]] == [[]] * 7
    assert codes(answers[7]) == ["ALREADY_ENTERED"] and codes(answers[999]) == ["CAMPAIGN_NOT_FOUND"]
    assert len(answers) == 1000 and {answer["status"] for answer in answers[8:999]} == {"ELIGIBLE"}


def test_an_empty_list_is_answered_by_an_empty_list(servers: Runtime) -> None:
    assert check_eligibility(servers, []) == []


@pytest.mark.parametrize("items", [{}, {"campaignSlug": "summer"}, "x", 5, None])
def test_what_is_no_list_is_refused_with_one_line(servers: Runtime, items: Any) -> None:
    with pytest.raises(UsageError, match=r"^expected a list of checks such as \[.*\], got [a-zA-Z ]+$"):
        check_eligibility(servers, items)


def test_an_invite_counts_from_the_moment_it_is_there_until_it_expires(servers: Runtime) -> None:
    create(servers, eligibility={"inviteOnly": True})
    now = int(time.time())
    assert codes(one(servers)) == ["NOT_INVITED"]
    invite(servers, " FAN@example.com", ttl=now - 1)
    expired = one(servers)
    assert expired["reasons"][0]["detail"] == "only an expired invite by email, globalUserId, memberId"
    invite(servers, "fan@example.com", ttl=now + 600)
    assert one(servers)["status"] == "ELIGIBLE"
    invite(servers, "m1", ttl=now + 600, kind=InviteType.MEMBER_ID)
    assert one(servers, email="else@example.com", memberId="m1")["status"] == "ELIGIBLE"
    assert codes(one(servers, email="f.an@example.com")) == ["NOT_INVITED"]


def test_a_transfer_flows_on_to_the_replica_and_its_event_to_the_queue(servers: Runtime) -> None:
    create(servers)
    purge(servers, servers.names.analytics_queue)
    answer = one(servers, doTransfer=True, firstName="Zoë", markets=["berlin"], region="DE")
    replicate_all(servers)
    stored = document(servers, EntryKey("summer", answer["transfer"]["entryId"]))
    assert stored is not None
    assert (stored["firstName"], stored["markets"], stored["attributes"]) == (
        "Zoë",
        ["berlin"],
        {"region": "DE"},
    )
    assert stored["version"] == 1 and stored["_identity"] == {"email": "fan@example.com"}
    queue = servers.queue(servers.names.analytics_queue)
    types = {
        event["type"]
        for message in queue.receive(10, 0, 1)
        for event in orjson.loads(message.body)["items"]
        if event["data"].get("entryId") == answer["transfer"]["entryId"]
    }
    assert types == {"eligibility.judged", "entry.replicated"}


def test_racing_transfers_of_one_person_under_many_ids_leave_one_entry(servers: Runtime) -> None:
    create(servers)
    with ThreadPoolExecutor(6) as pool:
        asked = [check(doTransfer=True, entryId=f"race{number}", globalUserId="g1") for number in range(12)]
        answers = list(pool.map(lambda each: ask(servers, each)[0], asked))
    assert sorted(answer["transfer"]["state"] for answer in answers) == ["created"] + ["refused"] * 11
    assert {tuple(codes(answer)) for answer in answers} == {(), ("ALREADY_ENTERED",)}
    again = one(servers, doTransfer=True, globalUserId="g1")
    assert codes(again) == ["ALREADY_ENTERED"]


def test_racing_calls_of_one_fan_all_get_the_same_entry(servers: Runtime) -> None:
    create(servers)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: one(servers, doTransfer=True), range(12)))
    assert len({answer["transfer"]["entryId"] for answer in answers}) == 1
    assert sorted(answer["transfer"]["state"] for answer in answers) == ["created"] + ["existing"] * 11


def test_who_entered_elsewhere_and_was_removed_may_enter_again(servers: Runtime) -> None:
    create(servers)
    put(servers, key("e1"), email="Fan@example.com")
    replicate_all(servers)
    assert codes(one(servers)) == ["ALREADY_ENTERED"]
    remove(servers, key("e1"))
    assert one(servers, doTransfer=True)["transfer"]["state"] == "created"


def test_households_are_counted_in_the_replica(servers: Runtime) -> None:
    create(servers, eligibility={"maxPerUnit": 2})
    for name in ("e1", "e2"):
        assert one(servers, unit="u1", email=f"{name}@example.com")["status"] == "ELIGIBLE"
        put(servers, key(name), unit="u1")
        replicate_all(servers)
    assert codes(one(servers, unit="u1")) == ["HOUSEHOLD_LIMIT"]
    assert one(servers, unit="u2")["status"] == "ELIGIBLE"


class UserService:
    def get(self, global_user_id: str) -> User | None:
        return User(verified_phone=global_user_id == "g1", blocked=global_user_id == "g2")


class Services:
    user = UserService()


def test_the_user_service_is_asked_about_checks_with_a_global_user_id(servers: Runtime) -> None:
    create(servers, eligibility={"requireVerifiedPhone": True})
    servers.services = Services()  # type: ignore[assignment]
    answer = one(servers, globalUserId="g1")
    assert answer["status"] == "ELIGIBLE" and answer["sources"]["user"] == {
        "source": "service",
        "fresh": True,
    }
    assert codes(one(servers, globalUserId="g2")) == ["BLOCKED", "PHONE_NOT_VERIFIED"]


def test_a_service_that_is_not_configured_is_missed_only_where_it_is_needed(servers: Runtime) -> None:
    create(servers)
    create(servers, "strict", eligibility={"requireVerifiedPhone": True})
    assert one(servers, globalUserId="g1")["status"] == "ELIGIBLE"
    answer = one(servers, "strict", globalUserId="g1")
    assert (answer["status"], answer["eligible"]) == ("UNKNOWN", None)
    assert answer["missing"] == [{"fact": "user", "dependency": "service-user"}]


def elsewhere(runtime: Runtime, **sections: dict[str, Any]) -> Runtime:
    """The same environment with some addresses of somewhere else, which refuse: one attempt at each is enough."""
    values = runtime.settings.model_dump()
    for name, section in {"retry": {"attempts": 1}, **sections}.items():
        values[name] = {**values[name], **section}
    return Runtime(Settings(**values))


def closed_port() -> str:
    """An address without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def without_replica(runtime: Runtime, **sections: dict[str, Any]) -> Runtime:
    return elsewhere(
        runtime,
        mongo={"uri": f"mongodb://{closed_port()}", "server_selection_timeout_seconds": 0.2},
        eligibility={"read_seconds": 0.3},
        **sections,
    )


def test_an_unavailable_table_gives_unknown_and_writes_nothing(servers: Runtime) -> None:
    create(servers, eligibility={"inviteOnly": True})
    one(servers)
    down = elsewhere(servers, aws={"endpoint_url": f"http://{closed_port()}", "connect_timeout_seconds": 0.2})
    answer = one(down, doTransfer=True)
    assert answer["status"] == "UNKNOWN" and answer["transfer"]["state"] == "refused"
    assert {each["fact"] for each in answer["missing"]} == {"invites", "duplicates"}


def test_another_server_at_the_address_of_the_table_gives_unknown(servers: Runtime) -> None:
    create(servers)
    one(servers)
    stranger = Scripted()
    try:
        stranger.answers = [answer(200, b"<html>please log in</html>")]
        refused = one(elsewhere(servers, aws={"endpoint_url": stranger.url}), doTransfer=True)
    finally:
        stranger.stop()
    assert (refused["status"], refused["transfer"]["state"]) == ("UNKNOWN", "refused")


def test_an_unavailable_replica_gives_unknown(servers: Runtime) -> None:
    create(servers)
    one(servers)
    down = without_replica(servers)
    answer = one(down, doTransfer=True)
    assert (answer["status"], answer["missing"]) == (
        "UNKNOWN",
        [{"fact": "duplicates", "dependency": "mongo"}],
    )
    assert answer["sources"]["campaign"]["source"] == "cache"


def test_a_call_without_time_to_write_is_an_operators_matter(servers: Runtime) -> None:
    create(servers)
    with pytest.raises(UsageError, match=r"eligibility\.callSeconds \(4\) leaves no time"):
        one(elsewhere(servers, eligibility={"call_seconds": 4.0}, aws={"connect_timeout_seconds": 2.0}))


def test_an_unavailable_cache_changes_no_verdict(servers: Runtime) -> None:
    create(servers)
    down = elsewhere(servers, redis={"url": f"redis://{closed_port()}", "timeout_seconds": 0.2})
    answer = one(down)
    assert answer["status"] == "ELIGIBLE" and answer["sources"]["campaign"]["source"] == "database"


def test_a_campaign_that_breaks_the_contract_is_unknown_and_not_lost(servers: Runtime) -> None:
    broken = {**campaign().as_document(), "eligibility": {"minAge": "18"}}
    servers.database["campaigns"].insert_one(broken)
    answer = one(servers)
    assert answer["status"] == "UNKNOWN" and answer["missing"][0]["fact"] == "campaign"


def test_what_an_operator_types(
    servers: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    create(servers, "test-campaign")
    typed = Typed(servers, monkeypatch, capsys)
    text = (
        '[{"campaignSlug": "test-campaign", "entry": {"email": "test@example.com", "firstName": "Test", '
        '"lastName": "User"}, "doTransfer": false}]'
    )
    answer = typed("invoke", "checkEligibility", text)
    assert answer.code == 0 and [each["status"] for each in answer.document] == ["ELIGIBLE"]
    refused = typed("invoke", "checkEligibility", text.replace("test-campaign", "unknown"))
    assert refused.code == 0 and refused.document[0]["primaryReason"] == "CAMPAIGN_NOT_FOUND"
    for wrong, line in (("[{", "the event is not JSON"), ("{}", "expected a list of checks")):
        answer = typed("invoke", "checkEligibility", wrong)
        assert (answer.code, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
        assert line in answer.stderr


def test_unknown_verdicts_are_counted_in_cloudwatch_at_once_and_then_not_in_each_call(
    servers: Runtime,
) -> None:
    create(servers)
    one(servers)
    down = without_replica(servers, observability={"cloudwatch_enabled": True})

    def counted() -> float:
        return sum(down.metrics.own_values(UNKNOWN_VERDICTS, down.clock(), 600.0))

    before = counted()
    assert [one(down)["status"] for _ in range(3)] == ["UNKNOWN"] * 3
    assert counted() - before == 1
    one(elsewhere(servers, observability={"cloudwatch_enabled": True}))
    assert counted() - before == 1, "a verdict that was given is not counted"
