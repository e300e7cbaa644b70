"""Gathering facts: what is shared is read once, and what does not answer is missing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regworkers_core.adapters.mongo.entrants import EACH
from regworkers_core.domain.claim import Invite, InviteType, User, invite_key
from regworkers_core.domain.eligibility import FactSource, Known, Missing
from regworkers_core.domain.reasons import DependencyDown, TransientFailure, UsageError
from regworkers_core.eligibility.case import AsOf, Identity
from regworkers_core.eligibility.gather import Gathered
from regworkers_core.eligibility.request import read_check
from regworkers_core.eligibility.rules import judge
from tests.eligibility.fakes import NOW, Replica, Table, World, no_trouble
from tests.eligibility.world import campaign, check
from tests.support.entries import item, key

AS_OF = AsOf.at(NOW)
STRICT = {"inviteOnly": True, "requireVerifiedPhone": True, "minAge": 18, "maxPerUnit": 2}
FAN = User(verified_phone=True, blocked=False, birth_date=date(1990, 1, 1))


def gather(world: World, *checks: dict[str, Any]) -> list[Gathered]:
    gathered = world.gatherer.gather([read_check(each) for each in checks])
    return [each.at(world.now) for each in gathered]


def said(gathered: Gathered) -> str:
    judgement = judge(gathered.check.subject, gathered.facts, AS_OF)
    codes = [reason.code for reason in judgement.reasons]
    return " ".join(codes or ["UNKNOWN", *judgement.missing] if codes or judgement.missing else ["ELIGIBLE"])


def verdict(world: World, **entry: Any) -> str:
    return said(gather(world, check(**entry))[0])


def strict_world(**limits: Any) -> World:
    """A fan whom a strict campaign admits: invited, verified, old enough, the second of a household."""
    world = World(campaign(eligibility=STRICT), **limits)
    world.users.records["g1"] = FAN
    world.table.put(Invite("summer", InviteType.EMAIL, "fan@example.com", int(NOW) + 60).as_item())
    world.replica.put("other", unit="u1", email="other@example.com")
    world.table.put(item(key("other"), email="other@example.com", unit="u1"))
    return world


ADMITTED = {"globalUserId": "g1", "unit": "u1"}


def test_a_thousand_checks_share_their_reads() -> None:
    world = World(campaign(), campaign("winter"))
    checks = [
        check(
            "winter" if number % 2 else "summer",
            email=f"fan{number}@example.com",
            globalUserId=f"g{number % 10}",
        )
        for number in range(1000)
    ]
    gathered = gather(world, *checks)
    assert [each.check.subject.mail for each in gathered] == [each["entry"]["email"] for each in checks]
    assert sorted(world.campaigns.asked) == ["summer", "winter"]
    # A claim key each for a thousand addresses and ten ids (of one campaign each).
    assert sum(world.table.reads) == 1010 and len(world.table.reads) == 11
    assert len(world.replica.asked) == 1 and world.secrets.gets == 1
    assert sorted(world.users.asked) == [f"g{number}" for number in range(10)]


def test_a_single_check_costs_one_read_of_everything() -> None:
    world = strict_world()
    assert verdict(world, **ADMITTED) == "ELIGIBLE"
    assert world.campaigns.asked == ["summer"] and world.users.asked == ["g1"]
    # Claims on address and id, invites by both.
    assert world.table.reads == [4] and world.replica.asked == [3]


def test_what_no_rule_needs_is_not_read() -> None:
    world = World(campaign())
    gather(world, check(unit="u1"), check("nowhere"), check("", firstName=None))
    assert world.table.reads == [1] and world.replica.asked == [1] and world.users.asked == []
    assert sorted(world.campaigns.asked) == ["nowhere", "summer"]


def unavailable() -> None:
    raise TransientFailure("it", "no answer")


def open_circuit() -> None:
    raise DependencyDown("it", "the circuit is open")


def missing_table() -> None:
    raise UsageError("it does not exist")


def surprise() -> None:
    raise ValueError("fan@example.com")


@pytest.fixture
def slow() -> Iterator[Callable[[], object]]:
    """Waits until the test is over."""
    over = threading.Event()
    yield over.wait
    over.set()


def too_late(fake: Table | Replica) -> Callable[[], object]:
    """Who is asked in the caller's thread bounds its own time, so a slow one says so when that is over."""

    def over() -> None:
        within = fake.within[-1]
        assert within is not None and within < 1.0
        raise TransientFailure("it", "too late")

    return over


of_each_dependency = pytest.mark.parametrize(
    ("who", "expected"),
    [
        ("table", "UNKNOWN invites duplicates"),
        ("replica", "UNKNOWN duplicates household"),
        ("users", "UNKNOWN user"),
        ("secrets", "UNKNOWN duplicates"),
    ],
)
TROUBLES = [unavailable, open_circuit, missing_table, surprise]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda each: each.__name__)
@of_each_dependency
def test_a_dependency_in_trouble_leaves_its_facts_missing(
    who: str, expected: str, trouble: Callable[[], object]
) -> None:
    world = strict_world()
    getattr(world, who).trouble = trouble
    (gathered,) = gather(world, check(**ADMITTED))
    assert said(gathered) == expected
    facts = [getattr(gathered.facts, field.name) for field in fields(gathered.facts)]
    assert "fan@" not in str([fact for fact in facts if isinstance(fact, Missing)])


@of_each_dependency
def test_a_slow_dependency_is_waited_for_until_its_deadline(
    who: str, expected: str, slow: Callable[[], object]
) -> None:
    # A dependency that is not slow gets enough time on a busy machine.
    short, long = 0.05, 10.0
    world = strict_world(
        user_budget_seconds=short if who == "users" else long,
        read_seconds=long if who == "users" else short,
    )
    fake = getattr(world, who)
    fake.trouble = too_late(fake) if isinstance(fake, Table | Replica) else slow
    assert verdict(world, **ADMITTED) == expected


def test_the_table_and_the_replica_get_the_remaining_time() -> None:
    world = strict_world(read_seconds=600.0)
    gather(world, check(**ADMITTED))
    world.gatherer.gather([read_check(check(**ADMITTED))], time.monotonic() + 60.0)
    for fake in (world.table, world.replica):
        given = [within for within in fake.within if within is not None]
        assert len(given) == len(fake.within) and 60 < given[0] <= 600 and given[-1] <= 60


def test_more_keys_than_fit_into_a_call_are_waited_for_until_the_deadline(
    slow: Callable[[], object],
) -> None:
    world = World(campaign(), read_seconds=0.05)
    world.table.trouble = slow
    gathered = gather(world, *(check(email=f"f{number}@example.com") for number in range(101)))
    assert {said(each) for each in gathered} == {"UNKNOWN duplicates"}


def test_a_slow_user_service_delays_no_check_that_does_not_need_it(slow: Callable[[], object]) -> None:
    world = World(campaign(), user_budget_seconds=0.05)
    world.users.trouble = slow
    assert verdict(world, globalUserId="g1") == "ELIGIBLE"


def test_more_users_than_threads_queue_within_the_budget(slow: Callable[[], object]) -> None:
    world = World(campaign(), user_budget_seconds=0.05, threads=2)
    world.users.trouble = slow
    checks = [check(email=f"f{number}@example.com", globalUserId=f"g{number}") for number in range(50)]
    gathered = gather(world, *checks)
    assert all(isinstance(each.facts.user, Missing) for each in gathered) and len(world.users.asked) == 2
    world.users.trouble = no_trouble
    slow.__self__.set()  # type: ignore[attr-defined]
    gather(world, check(globalUserId="later"))
    assert world.users.asked[2:] == ["later"], "queued calls were dropped at their deadline"


def test_a_campaign_that_cannot_be_read_is_unknown_and_no_other_is() -> None:
    world = World(campaign())
    world.campaigns.missing = Missing("mongo", "no answer")
    assert verdict(world) == "UNKNOWN campaign"
    assert world.table.reads == []


def test_campaigns_are_looked_up_at_the_same_time() -> None:
    names = [f"c{number}" for number in range(12)]
    world = World(*map(campaign, names), threads=12)
    # No call returns before all have begun.
    world.campaigns.trouble = threading.Barrier(len(names), timeout=10).wait
    assert {said(each) for each in gather(world, *map(check, names))} == {"ELIGIBLE"}


def test_campaigns_are_waited_for_together_and_no_longer_than_for_one(slow: Callable[[], object]) -> None:
    world = World(campaign(), threads=2, campaign_seconds=0.05)
    world.campaigns.trouble = slow
    gathered = gather(world, *(check(f"c{number}") for number in range(12)))
    assert {said(each) for each in gathered} == {"UNKNOWN campaign"}
    assert len(world.campaigns.asked) == 2, "the others gave up before they began"


@pytest.mark.parametrize("who", ["users", "secrets"])
def test_nothing_is_waited_for_beyond_the_end_of_the_call(who: str, slow: Callable[[], object]) -> None:
    world = strict_world(user_budget_seconds=600.0, read_seconds=600.0, threads=4, campaign_seconds=600.0)
    getattr(world, who).trouble = slow
    (gathered,) = world.gatherer.gather([read_check(check(**ADMITTED))], time.monotonic() + 0.05)
    assert said(gathered.at(world.now)).startswith("UNKNOWN")


def test_after_the_end_of_the_call_no_dependency_is_asked() -> None:
    world = strict_world()
    (gathered,) = world.gatherer.gather([read_check(check(**ADMITTED))], time.monotonic() - 1.0)
    assert said(gathered) == "UNKNOWN campaign"
    assert world.table.within == world.replica.within == world.users.asked == []


def test_an_invite_that_could_not_be_read_is_missing_once_the_others_have_ended() -> None:
    world = World(campaign(eligibility={"inviteOnly": True}))
    pk, sk = invite_key("summer", InviteType.EMAIL, "fan@example.com")
    world.table.put({"PK": pk, "SK": sk, "ttl": int(NOW) + 5})
    (gathered,) = gather(world, check())
    half_read = replace(gathered, unread_invites=Missing("dynamodb", "no answer"))
    assert isinstance(half_read.at(NOW + 4).facts.invites, Known)
    assert isinstance(half_read.at(NOW + 5).facts.invites, Missing)


def test_evidence_outweighs_what_could_not_be_read() -> None:
    world = World(campaign())
    world.table.put(item(key("e1"), email="FAN@example.com"))
    world.replica.put("e1", email="fan@example.com")
    world.secrets.trouble = unavailable
    assert verdict(world) == "ALREADY_ENTERED"


@pytest.mark.parametrize("kind", list(Identity))
def test_an_entry_that_another_writer_put_is_found_in_the_replica(kind: Identity) -> None:
    world = World(campaign())
    value = {"email": "fan@example.com", "globalUserId": "g1", "memberId": "m1"}
    world.replica.put("e1", **{kind.value: value[kind.value]})
    world.table.put(item(key("e1"), **{"email": "else@example.com", kind.value: value[kind.value]}))
    (gathered,) = gather(world, check(**value))
    assert gathered.facts.duplicates == Known(frozenset({kind}), FactSource.DATABASE)


@pytest.mark.parametrize("now", [None, {"email": "new@example.com"}], ids=["removed", "changed"])
def test_the_table_has_the_last_word_over_a_replica_that_lags(now: dict[str, Any] | None) -> None:
    world = World(campaign())
    world.replica.put("e1", email="fan@example.com")
    if now is not None:
        world.table.put(item(key("e1"), **now))
    assert verdict(world) == "ELIGIBLE"


def test_an_entry_is_no_duplicate_of_itself_and_does_not_count_for_its_household() -> None:
    world = World(campaign(eligibility={"maxPerUnit": 1}))
    world.table.put(item(key("e1"), email="fan@example.com", unit="u1"))
    world.replica.put("e1", email="fan@example.com", unit="u1")
    assert verdict(world, entryId="e1", unit="u1") == "ELIGIBLE"
    assert verdict(world, entryId="e2", unit="u1") == "ALREADY_ENTERED HOUSEHOLD_LIMIT"


def test_other_campaigns_do_not_count() -> None:
    world = World(campaign(eligibility={"maxPerUnit": 1}), campaign("winter"))
    world.table.put(item(key("e1", "winter"), email="fan@example.com", unit="u1"))
    world.replica.put("e1", campaign_id="winter", email="fan@example.com", unit="u1")
    answers = gather(world, check(unit="u1"), check("winter"))
    assert list(map(said, answers)) == ["ELIGIBLE", "ALREADY_ENTERED"]


def test_more_matches_than_are_looked_at_are_unknown_unless_one_of_them_tells() -> None:
    world = World(campaign(eligibility={"maxPerUnit": 2}))
    # Of one address, as many as are read; the table has none of them.
    for number in range(EACH):
        world.replica.put(f"old{number}", email="fan@example.com")
    assert verdict(world, unit="u1") == "UNKNOWN duplicates household"
    for number in range(2):
        world.replica.put(f"e{number}", unit="u1")
    assert verdict(world, unit="u1") == "HOUSEHOLD_LIMIT"


def test_as_many_of_a_household_are_looked_at_as_its_limit_asks() -> None:
    world = World(campaign(eligibility={"maxPerUnit": 100}))
    for number in range(99):
        world.replica.put(f"e{number}", unit="u1")
    assert verdict(world, unit="u1") == "ELIGIBLE"
    world.replica.put("e99", unit="u1")
    assert verdict(world, unit="u1") == "HOUSEHOLD_LIMIT"


def test_what_one_check_has_read_another_of_the_call_does_not_read_again() -> None:
    world = World(campaign())
    world.table.put(item(key("e1"), email="fan@example.com"))
    world.replica.put("e1", email="fan@example.com")
    answers = gather(world, check(entryId="e1"), check(entryId="e2"))
    assert list(map(said, answers)) == ["ELIGIBLE", "ALREADY_ENTERED"]
    assert len(world.table.reads) == 1


def test_one_invite_that_counts_is_enough_whatever_could_not_be_read() -> None:
    world = World(campaign(eligibility={"inviteOnly": True}))
    world.table.put(Invite("summer", InviteType.MEMBER_ID, "m1", int(NOW) + 60).as_item())
    assert verdict(world, memberId=" m1 ") == "ELIGIBLE"
    assert verdict(world, memberId="M1") == "NOT_INVITED"


def strict_and(terms: dict[str, Any]) -> World:
    world = strict_world()
    made = (campaign(eligibility=terms), campaign("winter", status="CLOSED"))
    world.campaigns.by_name = {each.campaign_id: each for each in made}
    return world


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "campaign_slug": st.sampled_from(["summer", "winter", "nowhere"]),
                "email": st.sampled_from(["fan@example.com", "else@example.com", "fan"]),
                "unit": st.sampled_from([None, "u1"]),
                "globalUserId": st.sampled_from([None, "g1", "g2"]),
            }
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([{}, STRICT]),
)
@settings(max_examples=40)
def test_where_a_campaign_came_from_changes_no_verdict(
    checks: list[dict[str, Any]], terms: dict[str, Any]
) -> None:
    worlds = []
    for source in (FactSource.CACHE, FactSource.DATABASE):
        world = strict_and(terms)
        world.campaigns.source = source
        worlds.append([said(each) for each in gather(world, *(check(**each) for each in checks))])
    assert worlds[0] == worlds[1]
    alone = [said(gather(strict_and(terms), check(**each))[0]) for each in checks]
    assert alone == worlds[0], "together they fare as each alone"
