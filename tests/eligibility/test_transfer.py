"""doTransfer: one entry per person, under races and crashes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest

from regworkers_core.adapters.aws.sqs import EventQueue
from regworkers_core.domain.claim import (
    CLAIM_LEASE_SECONDS,
    CLOCKS_SECONDS,
    WRITE_GRACE_SECONDS,
    Claim,
    InviteType,
    invite_key,
)
from regworkers_core.domain.keys import EntryKey, is_selection_id
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.eligibility.check import Checker
from regworkers_core.eligibility.identity import FAN
from regworkers_core.eligibility.transfer import Transfer
from regworkers_core.engine.queue import Outgoing, SendFailure
from regworkers_core.engine.stop import no_step
from tests.eligibility.campaign.world import OPENS, closed
from tests.eligibility.campaign.world import World as Judged
from tests.eligibility.fakes import NOW, World
from tests.eligibility.world import campaign, check, codes
from tests.support.in_memory import MemoryQueue


class Crash(Exception):
    """The process ends here."""


class Analytics(MemoryQueue):
    def __init__(self) -> None:
        super().__init__("analytics")
        self.within: list[float | None] = []

    def send(self, messages: Sequence[Outgoing], *, within_seconds: float | None = None) -> list[SendFailure]:
        self.within.append(within_seconds)
        return super().send(messages, within_seconds=within_seconds)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for message in self.sent for event in orjson.loads(message.body)["items"]]


class Desk:
    """A checker over a world, and the ways to ask it."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, **changes: Any) -> None:
        self.world = World(campaign(**changes))
        self.analytics = Analytics()
        transfer = Transfer(self.world.table, clock=lambda: self.world.now, monotonic=monotonic)
        events = EventQueue(self.analytics, sign=lambda _body: "signed")
        self.checker = Checker(self.world.gatherer, transfer, events, clock=lambda: self.world.now)

    def ask(self, *checks: dict[str, Any], at: str = "") -> list[dict[str, Any]]:
        """`at`: the step at which the process crashes."""

        def step(name: str) -> None:
            if name == at:
                raise Crash

        return self.checker.check(checks, step)

    def enter(self, at: str = "", **entry: Any) -> dict[str, Any]:
        (answer,) = self.ask(check(doTransfer=True, **entry), at=at)
        return answer

    @property
    def entries(self) -> list[dict[str, Any]]:
        return list(self.world.table.entries.values())

    @property
    def claims(self) -> list[Claim]:
        items = self.world.table.items.values()
        return [Claim.of(item) for item in items if item["entityType"] == "IDENTITY"]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_an_eligible_fan_gets_an_entry_that_flows_on(desk: Desk) -> None:
    answer = desk.enter(globalUserId="g1", markets=["paris"], correlationId="corr")
    (entry,) = desk.entries
    assert answer["transfer"] == {"entryId": entry["entryId"], "state": "created", "version": 1}
    assert {name: entry[name] for name in ("version", "needsReplication", "correlationId", "markets")} == {
        "version": 1,
        "needsReplication": True,
        "correlationId": "corr",
        "markets": ["paris"],
    }
    assert entry["createdAt"] == entry["updatedAt"] == answer["asOf"]
    assert is_selection_id(entry["ref"]) and len(entry["ref"]) >= 22 and is_selection_id(entry["entryId"])
    assert "fan" not in repr([claim.key for claim in desk.claims]), "keys do not identify a person"


def test_a_check_alone_writes_nothing(desk: Desk) -> None:
    (answer,) = desk.ask(check())
    assert answer["status"] == "ELIGIBLE" and "transfer" not in answer
    assert desk.world.table.items == {} and desk.analytics.sent == []


def test_who_is_not_eligible_is_refused_and_leaves_no_trace(desk: Desk) -> None:
    answer = desk.enter(markets=["nowhere"])
    assert answer["transfer"] == {"entryId": None, "state": "refused", "version": None}
    assert desk.world.table.items == {} and desk.analytics.sent == []


def test_a_repeat_finds_its_entry_also_under_another_spelling_and_after_the_campaign_has_closed(
    desk: Desk,
) -> None:
    first = desk.enter()["transfer"]
    again = desk.enter(email=" FAN@Example.COM ")["transfer"]
    assert again == {**first, "state": "existing"} and len(desk.entries) == 1
    desk.world.campaigns.by_name["summer"] = campaign(status="CLOSED")
    late = desk.enter()
    assert codes(late) == ["CAMPAIGN_CLOSED"] and late["transfer"] == again


def test_a_fan_who_repeats_with_more_or_fewer_identities_finds_the_same_entry(desk: Desk) -> None:
    first = desk.enter(entryId="mine", globalUserId="g1")["transfer"]
    for more in (
        {"globalUserId": "g1", "memberId": "m1"},
        {},
        {"email": "new@example.com", "globalUserId": "g1"},
    ):
        answer = desk.enter(entryId="mine", **more)
        assert answer["transfer"] == {**first, "state": "existing"}, answer
    assert len(desk.entries) == 1


def test_dots_and_tags_make_another_person(desk: Desk) -> None:
    for email in ("fan@example.com", "f.an@example.com", "fan+x@example.com"):
        assert desk.enter(email=email)["transfer"]["state"] == "created"


@pytest.mark.parametrize("kind", ["email", "globalUserId", "memberId"])
def test_another_entry_of_the_same_person_is_refused(desk: Desk, kind: str) -> None:
    desk.enter(globalUserId="g1", memberId="m1")
    other: dict[str, Any] = {"email": "else@example.com", "entryId": "another"}
    same = {"email": "fan@example.com", "globalUserId": "g1", "memberId": "m1"}
    answer = desk.enter(**{**other, kind: same[kind]})
    assert codes(answer) == ["ALREADY_ENTERED"] and answer["transfer"]["state"] == "refused"
    assert answer["reasons"][0]["detail"] == f"an earlier entry has the same {kind}"
    assert len(desk.entries) == 1


def test_an_entry_id_of_another_person_is_refused(desk: Desk) -> None:
    desk.enter(entryId="e1")
    answer = desk.enter(entryId="e1", email="else@example.com")
    assert answer["reasons"][0]["detail"] == "entryId belongs to another person's entry"
    assert codes(answer) == ["INVALID_FIELD"] and answer["transfer"]["state"] == "refused"


@pytest.mark.parametrize("step", ["transfer.after_claims", "transfer.after_entry"])
def test_a_crash_between_any_two_steps_is_healed_by_the_repeat(desk: Desk, step: str) -> None:
    with pytest.raises(Crash):
        desk.enter(at=step, globalUserId="g1")
    answer = desk.enter(globalUserId="g1")
    assert answer["transfer"]["state"] == ("existing" if step == "transfer.after_entry" else "created")
    assert len(desk.entries) == 1 and len(desk.claims) == 2
    assert len(desk.analytics.events) == 1


def test_a_claim_without_an_entry_expires_with_its_lease(desk: Desk) -> None:
    with pytest.raises(Crash):
        desk.enter(at="transfer.after_claims")
    assert codes(desk.enter(entryId="another")) == ["ALREADY_ENTERED"]
    assert desk.ask(check())[0]["status"] == "ELIGIBLE", "there is no entry"
    desk.world.now += CLAIM_LEASE_SECONDS
    assert desk.enter(entryId="another")["transfer"]["state"] == "created"
    assert [claim.entry_id for claim in desk.claims] == ["another"]


def test_a_crashed_writer_finds_that_another_entry_took_over(desk: Desk) -> None:
    with pytest.raises(Crash):
        desk.enter(at="transfer.after_claims")
    desk.world.now += CLAIM_LEASE_SECONDS
    desk.enter(entryId="another")
    assert codes(desk.enter()) == ["ALREADY_ENTERED"] and len(desk.entries) == 1


def test_a_removed_entry_blocks_no_fan_and_comes_back_with_a_new_time(desk: Desk) -> None:
    first = desk.enter()["transfer"]["entryId"]
    key = EntryKey("summer", first)
    before = desk.world.table.entries.pop(key)
    desk.world.now += 1
    assert desk.ask(check())[0]["status"] == "ELIGIBLE"
    assert desk.enter()["transfer"] == {"entryId": first, "state": "created", "version": 1}
    assert desk.entries[0]["createdAt"] > before["createdAt"]
    del desk.world.table.entries[key]
    desk.world.now += CLAIM_LEASE_SECONDS
    assert desk.enter(entryId="another")["transfer"]["state"] == "created"


def test_an_address_that_an_entry_has_let_go_is_free_again(desk: Desk) -> None:
    first = desk.enter()["transfer"]["entryId"]
    desk.world.table.entries[EntryKey("summer", first)] |= {"email": "new@example.com"}
    assert desk.enter(entryId="another")["transfer"]["state"] == "created"


def test_a_damaged_claim_blocks_no_fan(desk: Desk) -> None:
    desk.enter()
    desk.world.table.entries.clear()
    for claim in desk.claims:
        desk.world.table.put({**claim.as_item(), "entryId": None, "claimedAt": "soon"})
    assert desk.enter()["transfer"]["state"] == "created"


@pytest.mark.parametrize("ids", [["same"] * 8, [f"e{number}" for number in range(8)], [None] * 8])
def test_racing_transfers_of_one_person_leave_one_entry(desk: Desk, ids: list[str | None]) -> None:
    start = threading.Barrier(len(ids))

    def enter(entry_id: str | None) -> dict[str, Any]:
        start.wait()
        return desk.enter(**({} if entry_id is None else {"entryId": entry_id}))

    with ThreadPoolExecutor(len(ids)) as pool:
        answers = list(pool.map(enter, ids))
    states = [answer["transfer"]["state"] for answer in answers]
    assert states.count("created") == 1 and len(desk.entries) == 1
    others = {"refused"} if len(set(ids)) > 1 else {"existing"}
    assert set(states) - {"created"} <= others
    for answer in answers:
        assert codes(answer) == ([] if answer["transfer"]["state"] != "refused" else ["ALREADY_ENTERED"])


def test_who_is_faster_between_the_reading_and_the_claim_wins(desk: Desk) -> None:
    """The other one enters while this call has gathered and not yet claimed."""
    claim, once = desk.world.table.claim, iter([True])

    def overtaken(wanted: Claim, over: Claim | None, **_time: Any) -> bool:
        if next(once, False):
            desk.world.table.claim = claim  # type: ignore[method-assign]
            assert desk.enter(entryId="faster")["transfer"]["state"] == "created"
        return claim(wanted, over)

    desk.world.table.claim = overtaken  # type: ignore[method-assign]
    assert codes(desk.enter(entryId="slower")) == ["ALREADY_ENTERED"]
    assert [entry["entryId"] for entry in desk.entries] == ["faster"]


def test_a_transfer_is_judged_at_the_moment_that_becomes_its_created_at(tmp_path: Path) -> None:
    """Of a call that takes longer than the campaign is open, the later ones are late."""
    desk = Desk(opensAt=OPENS, closesAt=iso(NOW + 1))

    def slow() -> None:
        desk.world.now += 0.1

    desk.world.table.trouble = slow
    answers = desk.ask(*(check(doTransfer=True, email=f"{number}@example.com") for number in range(10)))
    written = {entry["entryId"]: entry for entry in desk.entries}
    assert {codes(answer)[0] for answer in answers if codes(answer)} == {"CAMPAIGN_CLOSED"}
    for answer in answers:
        if not codes(answer):
            entry = written.pop(answer["transfer"]["entryId"])
            assert entry["createdAt"] == entry["updatedAt"] == answer["asOf"]
    assert written == {} and 2 < len(desk.entries) < 8
    judged = Judged(desk.entries).judge(tmp_path, closed(opensAt=OPENS, closesAt=iso(NOW + 1)))
    assert all(reasons == [] for reasons in judged.values()), "who was let in is in the draw"


def test_an_invite_is_good_at_the_entrys_moment_or_not_at_all() -> None:
    desk = Desk(eligibility={"inviteOnly": True})
    pk, sk = invite_key("summer", InviteType.EMAIL, "fan@example.com")
    desk.world.table.put({"PK": pk, "SK": sk, "entityType": "INVITE", "ttl": int(NOW) + 1})

    def late() -> None:
        desk.world.now = NOW + 1

    desk.world.table.trouble = late
    answer = desk.enter()
    assert codes(answer) == ["NOT_INVITED"] and desk.entries == []


@pytest.mark.parametrize("clock", ["wall", "monotonic"])
def test_a_judgement_that_is_too_old_when_its_claims_are_made_is_repeated(clock: str) -> None:
    """By either clock: the other one may have been set, or stopped."""
    ticks = [0.0]
    desk = Desk(monotonic=lambda: ticks[0])
    delays = [WRITE_GRACE_SECONDS]

    def step(name: str) -> None:
        if name == "transfer.after_claims" and delays:
            by = delays.pop()
            desk.world.now += by if clock == "wall" else 0.001
            ticks[0] += by if clock == "monotonic" else 0.0

    (answer,) = desk.checker.check([check(doTransfer=True)], step)
    (entry,) = desk.entries
    assert answer["transfer"]["state"] == "created" and answer["asOf"] == entry["createdAt"]
    assert entry["createdAt"] == iso(desk.world.now)
    (within,) = desk.world.table.put_within
    assert within == WRITE_GRACE_SECONDS - CLOCKS_SECONDS - 5.0, "a retry of the put would come too late"


def test_a_campaign_that_closed_while_a_writer_claimed_refuses_the_entry() -> None:
    desk = Desk(closesAt=iso(NOW + WRITE_GRACE_SECONDS))

    def step(name: str) -> None:
        desk.world.now += WRITE_GRACE_SECONDS

    (answer,) = desk.checker.check([check(doTransfer=True)], step)
    assert codes(answer) == ["CAMPAIGN_CLOSED"] and answer["transfer"]["state"] == "refused"
    assert desk.entries == []


def test_a_writer_that_claims_too_slowly_again_and_again_lets_go(desk: Desk) -> None:
    def step(name: str) -> None:
        desk.world.now += WRITE_GRACE_SECONDS

    (answer,) = desk.checker.check([check(doTransfer=True)], step)
    assert (answer["status"], answer["missing"]) == (
        "UNKNOWN",
        [{"fact": "transfer", "dependency": "dynamodb"}],
    )
    assert desk.entries == [] and desk.analytics.sent == []


def test_what_is_not_written_when_the_call_is_over_is_left_to_a_repeat() -> None:
    def step(name: str) -> None:
        """The first of three is slow, by the clock that bounds the call."""
        if name == "transfer.after_entry":
            ticks[0] += 100.0

    ticks = [0.0]
    desk = Desk(monotonic=lambda: ticks[0])
    end = time.monotonic() + 50
    asked = [check(doTransfer=True, email=f"{number}@example.com") for number in range(3)]
    ticks[0] = end - 50
    answers = desk.checker.check(asked, step, end)
    assert [answer["status"] for answer in answers] == ["ELIGIBLE", "UNKNOWN", "UNKNOWN"]
    assert len(desk.entries) == 1 and len(desk.analytics.events) == 1
    again = desk.ask(*asked)
    assert [answer["transfer"]["state"] for answer in again] == ["existing", "created", "created"]


def test_the_event_is_not_retried_for_long(desk: Desk) -> None:
    desk.enter()
    (within,) = desk.analytics.within
    assert within is not None and 0 < within <= 1


def test_a_table_that_fails_during_a_write_leaves_the_entry_unknown(
    desk: Desk,
) -> None:
    claim = desk.world.table.claim

    def fail(*_: Any, **_more: Any) -> bool:
        raise TransientFailure("dynamodb", "no answer")

    desk.world.table.claim = fail  # type: ignore[method-assign]
    answer = desk.enter()
    assert (answer["status"], answer["eligible"], answer["reasons"]) == ("UNKNOWN", None, [])
    assert answer["missing"] == [{"fact": "transfer", "dependency": "dynamodb"}]
    desk.world.table.claim = claim  # type: ignore[method-assign]
    assert desk.enter()["transfer"]["state"] == "created"


def test_within_one_call_the_first_of_a_person_and_of_a_household_wins() -> None:
    desk = Desk(eligibility={"maxPerUnit": 1})
    asked = [
        check(doTransfer=True, entryId="e1", unit="u1"),
        check(doTransfer=True, entryId="e2"),
        check(doTransfer=True, entryId="e3", email="else@example.com", unit="u1"),
        check(doTransfer=True, entryId="e4", email="else@example.com", unit="u2"),
    ]
    answers = desk.ask(*asked)
    assert [codes(answer) for answer in answers] == [[], ["ALREADY_ENTERED"], ["HOUSEHOLD_LIMIT"], []]


def test_within_one_call_a_household_counts_new_entries_alone_and_each_of_them() -> None:
    desk = Desk(eligibility={"maxPerUnit": 3})
    mails = [f"fan{number}@example.com" for number in range(4)]
    desk.ask(check(doTransfer=True, email=mails[0], unit="u1"))
    desk.world.replica.put("of-the-first", unit="u1")
    answers = desk.ask(*(check(doTransfer=True, email=mail, unit="u1") for mail in mails))
    assert [answer["transfer"]["state"] for answer in answers] == [
        "existing",
        "created",
        "created",
        "refused",
    ]
    assert codes(answers[3]) == ["HOUSEHOLD_LIMIT"]


def test_the_event_tells_the_verdict_without_a_fans_data_and_under_the_same_id_again(desk: Desk) -> None:
    desk.enter(globalUserId="g1")
    desk.world.now += 5
    desk.enter(globalUserId="g1")
    first, second = desk.analytics.events
    assert first["id"] == second["id"] and first["type"] == "eligibility.judged"
    (entry,) = desk.entries
    assert first["subject"] == f"summer:{entry['entryId']}"
    assert first["data"] == {
        "campaignId": "summer",
        "entryId": entry["entryId"],
        "createdAt": entry["createdAt"],
        "version": 1,
        "updatedAt": entry["updatedAt"],
        "status": "ELIGIBLE",
        "reasons": [],
        "ruleSet": first["data"]["ruleSet"],
        "asOf": entry["createdAt"],
    }


def test_typing_another_persons_address_changes_no_event_of_their_entry(desk: Desk) -> None:
    desk.enter()
    typed = desk.checker.check([check(doTransfer=True, markets=["nowhere"])], no_step, callers=[FAN])[0]
    assert typed["status"] == "INELIGIBLE" and typed["transfer"]["state"] == "existing"
    # Its event has the id of the entry's own: whichever comes first is the one that consumers keep.
    assert [event["data"]["status"] for event in desk.analytics.events] == ["ELIGIBLE"]


@pytest.mark.parametrize("trouble", ["no answer", "refused"])
def test_an_event_that_cannot_be_queued_loses_no_entry_and_is_made_up_for(desk: Desk, trouble: str) -> None:
    desk.analytics.gate.down = trouble == "no answer"
    desk.analytics.fail = {0: False} if trouble == "refused" else {}
    assert desk.enter()["transfer"]["state"] == "created" and len(desk.entries) == 1
    assert desk.analytics.events == []
    desk.analytics.gate.down = False
    assert desk.enter()["transfer"]["state"] == "existing"
    assert len(desk.analytics.events) == 1


def test_an_entry_that_changed_since_has_had_its_event_long_ago(desk: Desk) -> None:
    desk.enter()
    desk.world.table.put({**desk.entries[0], "version": 2})
    assert desk.enter()["transfer"]["version"] == 2
    assert len(desk.analytics.events) == 1


def test_the_secret_is_made_once_however_many_ask_first() -> None:
    worlds = [World(campaign()) for _ in range(8)]
    shared = worlds[0].secrets
    start = threading.Barrier(len(worlds))

    def ask(number: int) -> str:
        world = worlds[number]
        world.secret._secrets = shared
        world.secret._entropy = lambda size: bytes([number]) * size
        start.wait()
        return world.secret.hash().entry_id("summer", "fan@example.com")

    with ThreadPoolExecutor(len(worlds)) as pool:
        assert len(set(pool.map(ask, range(len(worlds))))) == 1
    assert len(shared.values) == 1


def test_two_campaigns_keep_the_same_person_under_different_keys() -> None:
    hashes = World(campaign()).secret.hash()
    assert hashes.entry_id("summer", "fan@example.com") != hashes.entry_id("winter", "fan@example.com")
