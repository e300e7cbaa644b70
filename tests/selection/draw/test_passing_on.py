"""Seats that pass on: when a round begins, which seats lapse, and that no one gets one twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fairdraw.terms import ALGORITHM
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord
from regworkers_core.domain.campaign import PassOn
from regworkers_core.domain.selection import MarketPhase
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.passing_on import Expired, RoundState, RoundStopped, claim, decide
from tests.selection.draw.replay import replay_of
from tests.selection.draw.rounds import Rounds
from tests.selection.draw.world import CAMPAIGN
from tests.support.campaigns import create
from tests.support.faces import Face

HOUR = 3600.0
RELEASED = seconds("2027-03-01T09:00:00.000Z") or 0.0
END = RELEASED + 48 * HOUR
TERMS = PassOn(2, 24, "22:00-08:00 Europe/Berlin")
MARKET = MarketPhase("summer", "berlin", 1)
FOUND = {"findings": [{"name": "bias_audit"}]}


def record(
    status: str = "COMPLETED", complete_to: float = END, stated: float = END, **phase: Any
) -> DrawRecord:
    fields = {"status": status, "releasedAt": iso(RELEASED), "terms": {"algorithm": ALGORITHM}, **phase}
    stated = {"completeTo": iso(complete_to), "statedAt": iso(stated)}
    return DrawRecord("summer", "summer", 1, {1: PhaseRecord(1, fields)}, {}, {}, redemptions=stated)


def two_rounds() -> DrawRecord:
    first = record().phases[1].fields
    return replace(record(), phases={n: PhaseRecord(n, {**first, "round": n - 1}) for n in (1, 2, 3)})


@pytest.mark.parametrize(
    ("terms", "of", "lapsing", "unsettled", "after", "state", "why"),
    [
        (TERMS, record(), 3, 0, 1.0, "due", "3 seats lapse"),
        (None, record(), 3, 0, 1.0, "due", "3 seats lapse"),
        (TERMS, record(), 0, 0, 1.0, "none", "no seat has lapsed"),
        (TERMS, record(complete_to=END - 1), 3, 0, 1.0, "waiting", "stated all redemptions up to"),
        (TERMS, record(complete_to=END - 1), 3, 0, HOUR + 1, "stopped", "stated all redemptions up to"),
        (TERMS, record(), 3, 1, 1799.0, "waiting", "neither redeemed nor blocked 1 codes"),
        (TERMS, record(), 3, 1, 1801.0, "due", "3 seats lapse"),
        (TERMS, record(), 0, 1, 1801.0, "stopped", "neither redeemed nor blocked 1 codes"),
        (TERMS, record(releasedAt=iso(END)), 3, 0, 1.0, "waiting", "the next round is at"),
        (None, record(releasedAt=iso(END)), 3, 0, 1.0, "due", ""),
        (TERMS, record(), 3, 0, 12 * HOUR + 1, "waiting", "it is quiet"),
        (TERMS, record(), 3, 0, 22 * HOUR + 1, "due", ""),
        (TERMS, two_rounds(), 3, 0, 1.0, "none", "all 2 rounds are over"),
        (TERMS, record("DRAWN"), 3, 0, 1.0, "waiting", "phase 1 is DRAWN"),
        (TERMS, record("DRAWN", round=1), 0, 0, 1.0, "due", "round 1 goes on"),
        (TERMS, record("DRAWN", round=1, gate=FOUND), 0, 0, 1.0, "stopped", "found bias_audit in round 1"),
        (None, record("DRAWN", round=1, gate=FOUND), 0, 0, 1.0, "due", "round 1 goes on"),
        (TERMS, record("PUBLISHED", round=1, confirmedAt="x"), 0, 0, 1.0, "waiting", "phase 1 is PUBLISHED"),
        (TERMS, replace(record(), annulled={"at": "x"}), 3, 0, 1.0, "none", "no draw that counts"),
        (TERMS, None, 3, 0, 1.0, "none", "no draw that counts"),
    ],
)
def test_a_round_begins_when_codes_expired_the_issuer_said_all_and_it_is_not_quiet(
    terms: PassOn | None,
    of: DrawRecord | None,
    lapsing: int,
    unsettled: int,
    after: float,
    state: str,
    why: str,
) -> None:
    expired: Callable[[], list[Expired]] = lambda: [Expired(MARKET, iso(END), lapsing, unsettled)]  # noqa: E731
    decision = decide(terms, of, expired, END + after)
    assert decision.state == state and why in decision.why
    assert decision.phase or decision.state not in (RoundState.DUE, RoundState.STOPPED)


@pytest.fixture
def rounds(runtime: Runtime, tmp_path: Path) -> Rounds:
    return Rounds(runtime.settings, tmp_path, seats=20, rounds=2, trouble=20)


def test_over_rounds_no_seat_is_given_twice_no_fan_is_notified_twice_and_all_receipts_hold(
    rounds: Rounds,
) -> None:
    rounds.draw()
    rounds.play()
    assert list(rounds.check()) == []
    assert sum(rounds.lapsed) > 3 and rounds.forged
    assert replay_of(rounds.runtime).passed
    outcomes = rounds.outcomes()
    assert sum(outcome == "UNCLAIMED" for _, outcome in outcomes.values()) == sum(rounds.lapsed)
    assert list(rounds.unproven(outcomes)) == []
    rounds.runtime.mongo.close()


@pytest.mark.slow  # It draws 9,000 entrants five times, and the issuer states thousands of codes: some minutes.
def test_3_000_seats_pass_on_over_four_rounds(runtime: Runtime, tmp_path: Path) -> None:
    rounds = Rounds(runtime.settings, tmp_path, seats=3_000, rounds=4)
    rounds.draw()
    rounds.play()
    assert list(rounds.check()) == [] and replay_of(rounds.runtime).passed
    rounds.runtime.mongo.close()


def test_a_market_without_fresh_codes_passes_no_seat_on_and_takes_none(rounds: Rounds) -> None:
    rounds.draw()
    database = rounds.runtime.database
    database["codes"].update_many({"status": "AVAILABLE"}, {"$set": {"status": "VOID"}})
    database["codes"].update_many({"status": "ASSIGNED"}, {"$set": {"blockedAt": "x"}})
    later = iso(rounds.now + 48 * HOUR)
    database["draws"].update_one({}, {"$set": {"redemptions": {"completeTo": later, "statedAt": later}}})
    rounds.now += 50 * HOUR
    with pytest.raises(RoundStopped, match="market berlin needs 12 fresh codes and has 0"):
        claim(rounds.runtime, rounds.runtime.campaigns.require_id(CAMPAIGN))
    assert not rounds.runtime.codes.passed_on(CAMPAIGN)


def test_a_person_passes_seats_on_and_a_finding_of_the_gate_stops_the_round(
    rounds: Rounds, face: Face
) -> None:
    rounds.draw()
    database, word = rounds.runtime.database, f"{CAMPAIGN}:2"
    waits = face.does("draw pass-on", campaign_id=CAMPAIGN)
    assert waits.fine and "no seat has lapsed" in waits.text
    end = iso(rounds.now - 3 * HOUR)
    expired = {f"phases.1.markets.{name}.codesExpireAt": end for name in rounds.capacities}
    stated = {"redemptions": {"completeTo": end, "statedAt": end}}
    database["draws"].update_one({}, {"$set": {**expired, **stated}})
    silent = face.does("draw pass-on", campaign_id=CAMPAIGN)
    assert not silent.fine and "neither redeemed nor blocked 20 codes" in silent.text
    gone = [each["_id"] for each in database["codes"].find({"status": "ASSIGNED"}).limit(3)]
    database["codes"].update_many({"_id": {"$in": gone}}, {"$set": {"blocked": True, "blockedAt": end}})
    assert "passes on" not in face.does("draw pass-on", campaign_id=CAMPAIGN).text
    record = rounds.runtime.draws.get(CAMPAIGN)
    assert record is not None and (record.latest.phase, record.latest.round) == (2, 1)
    assert len(record.latest.strikes) == 3 and not record.latest.confirmed
    # Less than a day after the result.
    stopped = face.does("draw pass-on", campaign_id=CAMPAIGN, confirm=word)
    assert not stopped.fine and "early_unclaimed" in stopped.text


def test_a_seat_that_passed_on_is_redeemed_by_no_one_and_one_that_was_redeemed_passes_on_to_no_one(
    runtime: Runtime,
) -> None:
    codes = [
        {"_id": name, "campaignId": "summer", "marketId": "berlin", "phase": 1, "position": at, "ref": name}
        | {"status": "ASSIGNED", "blockedAt": "x"}
        for at, name in enumerate(("lapses", "used"), 1)
    ]
    runtime.database["codes"].insert_many(codes)
    assert runtime.codes.redeem("summer", "used", at="x", run_id="r")
    assert runtime.codes.pass_on(MARKET, 2) == 1 and runtime.codes.passed_on("summer") == ["lapses"]
    assert not runtime.codes.redeem("summer", "lapses", at="x", run_id="r")


def test_seats_pass_on_by_themselves_only_with_keys_of_the_issuer_a_day_for_winners_and_a_confirmation(
    runtime: Runtime, face: Face
) -> None:
    keys = [{"id": "k1", "key": "ab" * 32}]
    create(runtime, "summer", issuerKeys=keys, codes={"expireAfterHours": 48})
    create(runtime, "keyless", slug="keyless", codes={"expireAfterHours": 48})
    create(runtime, "endless", slug="endless", issuerKeys=keys)
    given = {"rounds": 4, "every_hours": 24, "quiet": TERMS.quiet}
    for campaign_id, change, why in (
        ("keyless", {}, "names no key of the issuer"),
        ("endless", {}, "do not expire"),
        ("summer", {"every_hours": 23}, "everyHours should be at least 24"),
        ("summer", {"quiet": "22-8"}, "quiet should be two times and a zone"),
    ):
        refused = face.does("campaign pass-on", campaign_id=campaign_id, **{**given, **change})
        assert not refused.fine and why in refused.text
    face.does("campaign pass-on", campaign_id="summer", **given)
    assert runtime.campaigns.require_id("summer").pass_on is None
    assert face.does("campaign pass-on", apply=True, campaign_id="summer", **given).fine
    assert runtime.campaigns.require_id("summer").pass_on == replace(TERMS, rounds=4)
    assert face.does("campaign pass-on", apply=True, campaign_id="summer", rounds=0).fine
    assert runtime.campaigns.require_id("summer").pass_on is None
