"""Messages to fans at the terminal and on the launchpad: pause, follow, resume, retry."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from regworkers_core.runtime import Runtime
from regworkers_core.selection.drains import NOTIFICATIONS, SELECTIONS
from tests.support.drains import run
from tests.support.draws import CAMPAIGN, add_codes, confirmed, publish, published, result
from tests.support.faces import Face
from tests.support.terminal import regworkers

ROWS = result({"berlin": 3}, waiting=2)


@pytest.fixture
def drawn(runtime: Runtime) -> Runtime:
    """Three winners, two who wait: five messages."""
    published(runtime, ROWS, ["berlin"], codes=3)
    run(runtime, SELECTIONS)
    return runtime


def test_an_operator_stops_follows_and_resumes_the_messages(drawn: Runtime, face: Face) -> None:
    assert face.does("notifications pause", campaign_id=CAMPAIGN, reason="wrong text").fine
    assert run(drawn, NOTIFICATIONS).counts["received"] == 0
    answered = face.does("notifications status", campaign_id=CAMPAIGN)
    assert not answered.fine and "is paused by" in answered.text and "wrong text" in answered.text
    assert "berlin" in answered.text
    assert face.does("notifications resume", campaign_id=CAMPAIGN, reason="right").fine
    assert run(drawn, NOTIFICATIONS).counts["sent"] == 5
    assert face.does("notifications status").fine
    rows = [(each.what, each.target) for each in drawn.operator_actions.history()]
    assert rows == [("notifications resume", CAMPAIGN), ("notifications pause", CAMPAIGN)]


def test_failed_messages_are_shown_and_sent_again(drawn: Runtime, face: Face) -> None:
    drawn.database["outbox"].update_many({}, {"$set": {"status": "FAILED"}})
    shown = face.does("notifications status", campaign_id=CAMPAIGN)
    assert not shown.fine and "5 messages failed" in shown.text
    assert face.does("notifications retry", campaign_id=CAMPAIGN).fine
    assert drawn.database["outbox"].count_documents({"status": "FAILED"}) == 0
    (action,) = drawn.operator_actions.history()
    assert (action.what, action.result["messages"]) == ("notifications retry", 5)


def test_the_switch_knows_a_campaign_by_its_slug_as_well(runtime: Runtime, face: Face) -> None:
    confirmed(runtime, ROWS, ["berlin"])
    runtime.database["campaigns"].update_one({"_id": CAMPAIGN}, {"$set": {"slug": "summer-tour"}})
    paused = face.does("notifications pause", campaign_id="summer-tour", reason="r")
    assert paused.fine and CAMPAIGN in paused.text
    assert runtime.draws.get(CAMPAIGN).notifications["paused"]  # type: ignore[union-attr]
    # The campaign's document is gone, its messages are not.
    runtime.database["campaigns"].delete_many({})
    assert face.does("notifications resume", campaign_id=CAMPAIGN, reason="r").fine


def test_without_any_message_the_status_says_so(runtime: Runtime, face: Face) -> None:
    answered = face.does("notifications status")
    assert answered.fine and "there are no messages" in answered.text


@pytest.mark.parametrize("given", [{}, {"campaign_id": CAMPAIGN, "everything": True}])
def test_a_switch_needs_one_campaign_or_everything(
    runtime: Runtime, face: Face, given: dict[str, Any]
) -> None:
    answer = face.does("notifications pause", reason="r", **given)
    assert not answer.fine and "name one campaign, or everything" in answer.text
    assert not runtime.draw_markets.all_switch()


def test_the_person_who_pauses_is_named_at_the_terminal(drawn: Runtime) -> None:
    words = ("--reason", "wrong text", "--by", "ann", "--format", "json")
    paused = regworkers(drawn, "notifications", "pause", CAMPAIGN, *words)
    assert paused.code == 0 and paused.document["paused"] is True and paused.document["by"] == "ann"
    document = regworkers(drawn, "notifications", "status", "--format", "json").document
    assert document["campaigns"][CAMPAIGN]["phases"]["1"]["markets"]["berlin"]["pending"] == 3


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
