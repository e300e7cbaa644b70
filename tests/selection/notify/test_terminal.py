"""`regworkers notifications` and `regworkers invoke enqueueMarketSelections`, as their users see them."""

from __future__ import annotations

import orjson

from regworkers_core.runtime import Runtime
from regworkers_core.selection.drains import NOTIFICATIONS, SELECTIONS
from tests.support.drains import run
from tests.support.draws import CAMPAIGN, add_codes, confirmed, publish, result
from tests.support.terminal import regworkers

ROWS = result({"berlin": 3}, waiting=2)


def test_an_operator_stops_follows_and_resumes_the_messages(runtime: Runtime) -> None:
    confirmed(runtime, ROWS, ["berlin"])
    add_codes(runtime, "berlin", 3)
    publish(runtime)
    run(runtime, SELECTIONS)
    words = ("--reason", "wrong text", "--by", "ann", "--format", "json")
    paused = regworkers(runtime, "notifications", "pause", CAMPAIGN, *words)
    assert paused.code == 0 and paused.document["paused"] is True
    assert run(runtime, NOTIFICATIONS).counts["received"] == 0
    answered = regworkers(runtime, "notifications", "status", CAMPAIGN)
    assert (
        answered.code == 1
        and "paused by ann" in answered.stdout
        and "wrong text" in answered.stdout
        and "berlin" in answered.stdout
    )
    assert regworkers(runtime, "notifications", "resume", CAMPAIGN, *words).code == 0
    assert run(runtime, NOTIFICATIONS).counts["sent"] == 5
    after = regworkers(runtime, "notifications", "status", "--format", "json")
    assert after.code == 0
    assert after.document["campaigns"][CAMPAIGN]["phases"]["1"]["markets"]["berlin"]["sent"] == 3


def test_the_switch_knows_a_campaign_by_its_slug_as_well(runtime: Runtime) -> None:
    confirmed(runtime, ROWS, ["berlin"])
    runtime.database["campaigns"].update_one({"_id": CAMPAIGN}, {"$set": {"slug": "summer-tour"}})
    paused = regworkers(runtime, "notifications", "pause", "summer-tour", "--reason", "r", "--by", "ann")
    assert paused.code == 0 and CAMPAIGN in paused.stdout
    assert runtime.draws.get(CAMPAIGN).notifications["paused"]  # type: ignore[union-attr]
    # The campaign's document is gone, its messages are not.
    runtime.database["campaigns"].delete_many({})
    assert regworkers(runtime, "notifications", "resume", CAMPAIGN, "--reason", "r").code == 0


def test_without_any_message_the_status_says_so(runtime: Runtime) -> None:
    answered = regworkers(runtime, "notifications", "status")
    assert answered.code == 0 and "there are no messages" in answered.stdout


def test_a_switch_needs_one_campaign_or_all(runtime: Runtime) -> None:
    words = ("--reason", "r", "--by", "ann")
    for target in ([], [CAMPAIGN, "--all"], ["nowhere"]):
        answer = regworkers(runtime, "notifications", "pause", *target, *words)
        assert answer.code == 2 and "--all" in answer.stderr and answer.stdout == ""


def test_a_market_is_retried_with_the_legacy_worker(runtime: Runtime) -> None:
    confirmed(runtime, ROWS, ["berlin"])
    publish(runtime)
    event = orjson.dumps({"campaignId": CAMPAIGN, "marketId": "berlin"}).decode()
    blocked = regworkers(runtime, "invoke", "enqueueMarketSelections", event)
    assert blocked.code == 1 and (blocked.document["needed"], blocked.document["available"]) == (3, 0)
    add_codes(runtime, "berlin", 3)
    sent = regworkers(runtime, "invoke", "enqueueMarketSelections", event)
    assert sent.code == 0 and (sent.document["status"], sent.document["queued"]) == ("ASSIGNING", 1)
    wrong = regworkers(runtime, "invoke", "enqueueMarketSelections", '{"campaignId": "summer"}')
    assert wrong.code == 2 and "marketId is missing" in wrong.stderr
