"""Markets that wait for codes, later phases, markets that are taken up again."""

from __future__ import annotations

import pytest

from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import NON_WINNERS, Outcome
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.markets import stalled_markets
from regworkers_core.selection.assign.release import publish_phase, resume_blocked, retry_market
from regworkers_core.selection.drains import NOTIFICATIONS, SELECTIONS
from regworkers_core.selection.promises import codes_and_winners_biject, codes_within_capacity, counts_match
from regworkers_core.selection.status import read_campaign_status
from tests.selection.assign.test_assigning import dead, items, take
from tests.support.drains import run, taken
from tests.support.draws import (
    CAMPAIGN,
    CONFIRMED_AT,
    Row,
    add_codes,
    all_completed,
    code_at,
    confirmed,
    findings,
    market,
    market_status,
    next_phase,
    plan_of,
    publish,
    published,
    result,
)
from tests.support.runtimes import test_settings
from tests.support.waiting import sleeping

ROWS = result({"berlin": 6, "paris": 3}, waiting=4)
MARKETS = ("berlin", "paris")


def test_a_market_with_too_few_codes_gives_none_and_continues_after_an_import(runtime: Runtime) -> None:
    confirmed(runtime, ROWS, MARKETS)
    add_codes(runtime, "berlin", 5)
    add_codes(runtime, "paris", 3)
    facts = publish(runtime)
    assert facts["berlin"]["status"] == "BLOCKED"
    assert (facts["berlin"]["needed"], facts["berlin"]["available"]) == (6, 5)
    run(runtime, SELECTIONS)
    assert market_status(runtime) == {
        "": "PUBLISHED",
        "berlin": "BLOCKED",
        "paris": "COMPLETED",
        "-": "COMPLETED",
    }
    assert runtime.database["codes"].count_documents({"marketId": "berlin", "status": "AVAILABLE"}) == 5
    assert runtime.campaigns.require_id(CAMPAIGN).status == "PROCESSING"
    # Not enough yet, then enough.
    assert (
        resume_blocked(runtime, CAMPAIGN) == {}
        and retry_market(runtime, CAMPAIGN, "berlin")["available"] == 5
    )
    assert stalled_markets(runtime, older_than_seconds=0) == []
    add_codes(runtime, "berlin", 1, first=6)
    assert [(each.market.market_id, each.why) for each in stalled_markets(runtime, older_than_seconds=0)] == [
        ("berlin", "codes")
    ]
    assert resume_blocked(runtime, CAMPAIGN)["berlin"]["queued"] == 1
    assert resume_blocked(runtime, CAMPAIGN) == {}
    run(runtime, SELECTIONS)
    assert findings(runtime, ROWS) == [] and market_status(runtime) == all_completed(*MARKETS)
    assert runtime.campaigns.require_id(CAMPAIGN).status == "COMPLETED"


def test_a_code_expires_so_long_after_its_winner_may_be_notified_and_the_message_says_when(
    runtime: Runtime,
) -> None:
    confirmed(runtime, ROWS, MARKETS)
    runtime.database["campaigns"].update_one({}, {"$set": {"codes": {"expireAfterHours": 48}}})
    notified = seconds(CONFIRMED_AT) or 0.0
    early, late = (
        Runtime(test_settings(runtime.names.prefix), clock=lambda at=at: at)  # type: ignore[misc]
        for at in (notified - 60, notified + 86_400)
    )
    add_codes(runtime, "paris", 3)
    assert publish(early)["berlin"]["status"] == "BLOCKED"
    add_codes(runtime, "berlin", 6)
    assert resume_blocked(late, CAMPAIGN)["berlin"]["queued"] == 1
    early.mongo.close(), late.mongo.close()
    run(runtime, SELECTIONS)
    run(runtime, NOTIFICATIONS)
    ends = {"paris": iso(notified + 2 * 86_400), "berlin": iso(notified + 3 * 86_400), NON_WINNERS: None}
    sent = taken(runtime, runtime.names.notification_queue)
    assert {(each["marketId"], each.get("codeExpiresAt")) for each in sent} == set(ends.items())
    assert findings(runtime, ROWS) == []


def test_a_plan_counts_once_the_record_names_it_and_of_one_before_that_nothing_is_given(
    runtime: Runtime,
) -> None:
    rows = result({"berlin": 4})
    confirmed(runtime, rows, ["berlin"])
    add_codes(runtime, "berlin", 5)

    def dies(step: str) -> None:
        if step == "draw.after_plan":
            raise InterruptedError(step)

    with pytest.raises(InterruptedError):
        publish_phase(runtime, CAMPAIGN, 1, token=1, run_id="victim", on_step=dies)
    assert take(runtime) == [] and market_status(runtime)["berlin"] == "PENDING"
    # Whatever became of the codes meanwhile, the plan that counts is made of those that are there.
    runtime.database["codes"].update_one({"_id": code_at("berlin", 2)}, {"$set": {"status": "VOID"}})
    assert publish(runtime)["berlin"]["status"] == "ASSIGNING"
    run(runtime, SELECTIONS)
    assert findings(runtime, rows) == [] and market_status(runtime) == all_completed("berlin")
    assert plan_of(runtime, "berlin")["lastPosition"] == 5


def test_a_draw_without_winners_completes_at_once(runtime: Runtime) -> None:
    confirmed(runtime, [], MARKETS)
    facts = publish(runtime)
    assert {fact["status"] for fact in facts.values()} == {"COMPLETED"}
    assert take(runtime) == [] and market_status(runtime) == all_completed(*MARKETS)
    assert runtime.campaigns.require_id(CAMPAIGN).status == "COMPLETED"


def test_a_market_of_capacity_0_completes_at_once_and_the_others_are_assigned(runtime: Runtime) -> None:
    rows = result({"berlin": 2})
    confirmed(runtime, rows, MARKETS)
    add_codes(runtime, "berlin", 2)
    assert publish(runtime)["paris"]["status"] == "COMPLETED"
    run(runtime, SELECTIONS)
    assert findings(runtime, rows) == [] and market_status(runtime) == all_completed(*MARKETS)


def test_a_later_phase_continues_after_all_positions_and_notifies_only_of_changes(runtime: Runtime) -> None:
    published(runtime, ROWS, MARKETS, codes=10)
    run(runtime, SELECTIONS)
    struck = next(row for row in ROWS if row.market == "berlin")
    waiting = [row for row in ROWS if row.outcome is Outcome.WAITLIST]
    rows = next_phase(
        ROWS,
        {
            struck.ref: Row(struck.ref, Outcome.STRUCK, "", struck.rank),
            waiting[0].ref: Row(waiting[0].ref, Outcome.WINNER, "berlin", waiting[0].rank),
            waiting[1].ref: Row(waiting[1].ref, Outcome.WINNER, "berlin", waiting[1].rank),
            waiting[3].ref: Row(waiting[3].ref, Outcome.UNSELECTED, "", waiting[3].rank),
        },
    )
    confirmed(runtime, rows, MARKETS, phase=2)
    facts = publish(runtime, 2)
    assert {name: fact["planned"] for name, fact in facts.items()} == {"berlin": 2, "paris": 0, "-": 1}
    run(runtime, SELECTIONS)
    assert findings(runtime, rows, phase=2) == [] and findings(runtime, ROWS) == []
    positions = [each["position"] for each in runtime.database["selections"].find({"phase": 2})]
    assert sorted(positions) == [7, 8]
    assert [each["type"] for each in runtime.database["outbox"].find({"phase": 2, "marketId": "-"})] == [
        "unselected"
    ]
    assert market_status(runtime, 2) == all_completed(*MARKETS)
    # The struck winner of the first phase keeps the code that was given: no other fan gets it.
    assert codes_and_winners_biject(runtime, CAMPAIGN).passed and counts_match(runtime, CAMPAIGN).passed


def test_a_retry_sends_only_what_is_not_done(runtime: Runtime) -> None:
    published(runtime, ROWS, MARKETS, codes=6)
    lost = take(runtime)
    assert len(lost) == 3
    assert [each.why for each in stalled_markets(runtime, older_than_seconds=-1)] == ["chunks"] * 3
    assert stalled_markets(runtime, older_than_seconds=3600) == []
    for name in (*MARKETS, "-"):
        assert retry_market(runtime, CAMPAIGN, name)["queued"] == 1
    assert sorted(map(str, items(take(runtime)))) == sorted(map(str, items(lost)))
    for name in (*MARKETS, "-"):
        retry_market(runtime, CAMPAIGN, name)
    run(runtime, SELECTIONS)
    again = retry_market(runtime, CAMPAIGN, "berlin")
    assert (again["status"], again["queued"]) == ("COMPLETED", 0)
    assert take(runtime) == [] and findings(runtime, ROWS) == []


def test_a_market_that_was_not_completed_is_completed_by_a_retry(runtime: Runtime) -> None:
    published(runtime, ROWS, MARKETS, codes=6)
    run(runtime, SELECTIONS)
    undone = {"phases.1.markets.berlin.status": "ASSIGNING", "phases.1.status": "PUBLISHED"}
    runtime.database["draws"].update_one({"_id": CAMPAIGN}, {"$set": undone})
    assert [each.why for each in stalled_markets(runtime, older_than_seconds=-1)] == ["completion"]
    assert retry_market(runtime, CAMPAIGN, "berlin")["phaseCompleted"] is True
    assert market_status(runtime) == all_completed(*MARKETS)


def test_a_phase_that_was_not_completed_after_its_last_market_is_found_and_repaired(runtime: Runtime) -> None:
    confirmed(runtime, result({"berlin": 0}), ["berlin"])

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    # Every market is empty, so the publication completes them all: no message will ever start a drain.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("regworkers_core.selection.assign.release.finish_phase", die)
        with pytest.raises(KeyboardInterrupt):
            publish(runtime)
    assert market_status(runtime) == {**all_completed("berlin"), "": "PUBLISHED"}
    assert stalled_markets(runtime, older_than_seconds=60) == []
    (found,) = stalled_markets(runtime, older_than_seconds=-1)
    assert found.why == "completion"
    campaign = runtime.campaigns.require(CAMPAIGN)
    with sleeping(lambda _seconds: None):
        report = read_campaign_status(runtime, campaign)
    assert [each.text for each in report.findings] == [
        "phase 1: all its markets are complete, but the phase is not"
    ]
    assert f'"marketId": "{found.market.market_id}"' in report.findings[0].command
    assert retry_market(runtime, CAMPAIGN, found.market.market_id)["phaseCompleted"] is True
    assert market_status(runtime) == all_completed("berlin")
    assert stalled_markets(runtime, older_than_seconds=-1) == []


@pytest.mark.parametrize(
    ("collection", "left"),
    [
        ("selections", {"berlin": {"written": 5, "enqueued": 6}}),
        ("outbox", {"berlin": {"written": 6, "enqueued": 5}, NON_WINNERS: {"written": 0, "enqueued": 3}}),
    ],
)
def test_a_market_does_not_complete_while_a_row_is_missing_and_a_retry_writes_it(
    runtime: Runtime, collection: str, left: dict[str, dict[str, int]]
) -> None:
    published(runtime, ROWS, MARKETS, codes=6)
    refs = [next(row.ref for row in ROWS if row.market == name.strip(NON_WINNERS)) for name in left]

    def lose(step: str) -> None:
        if step == "selections.after_outbox":
            runtime.database[collection].delete_many({"ref": {"$in": refs}})

    report = run(runtime, SELECTIONS, on_step=lose)
    assert report.counts["dead_lettered"] >= 1
    assert {dead_letter.attributes["reason"] for dead_letter in dead(runtime)} == {"COUNT_MISMATCH"}
    assert codes_and_winners_biject(runtime, CAMPAIGN).passed is (collection == "outbox")
    for name, counts in left.items():
        assert market_status(runtime)[name] == "ASSIGNING"
        facts = retry_market(runtime, CAMPAIGN, name)
        assert facts["queued"] >= 1 and facts.items() >= counts.items()
    run(runtime, SELECTIONS)
    assert findings(runtime, ROWS) == [] and market_status(runtime) == all_completed(*MARKETS)


def test_the_checks_find_what_is_wrong(runtime: Runtime) -> None:
    published(runtime, ROWS, MARKETS, codes=7)
    run(runtime, SELECTIONS)
    for check in (codes_and_winners_biject, codes_within_capacity, counts_match):
        found = check(runtime, CAMPAIGN)
        assert found.passed, found
    stranger = {"status": "ASSIGNED", "ref": "stranger"}
    runtime.database["codes"].update_one({"_id": code_at("paris", 7)}, {"$set": stranger})
    found = codes_and_winners_biject(runtime, CAMPAIGN)
    assert not found.passed and found.numbers["codesWithoutSelection"] == 1
    extra = {"_id": f"{CAMPAIGN}:paris:1:x", "campaignId": CAMPAIGN, "marketId": "paris", "phase": 1}
    runtime.database["selections"].insert_one(
        {**extra, "ref": "x", "entryId": "x", "code": code_at("paris", 7), "position": 7}
    )
    assert not codes_within_capacity(runtime, CAMPAIGN).passed and not counts_match(runtime, CAMPAIGN).passed


def test_what_cannot_be_retried_says_why(runtime: Runtime) -> None:
    with pytest.raises(UsageError, match="has no draw"):
        retry_market(runtime, CAMPAIGN, "berlin")
    confirmed(runtime, ROWS, MARKETS)
    with pytest.raises(UsageError, match="none before the publication"):
        retry_market(runtime, CAMPAIGN, "berlin")
    publish(runtime)
    with pytest.raises(UsageError, match="no market 'rome'"):
        retry_market(runtime, CAMPAIGN, "rome")
    assert runtime.outbox.count(market("berlin")) == 0
