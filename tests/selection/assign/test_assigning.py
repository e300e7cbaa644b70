"""From a confirmed result to codes, selections and outbox rows, on the real servers."""

from __future__ import annotations

import io
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regworkers_core.adapters.mongo.outbox import OutboxRow
from regworkers_core.adapters.mongo.selections import Selection
from regworkers_core.domain.messages import MessageType, encode
from regworkers_core.domain.selection import NON_WINNERS
from regworkers_core.engine.queue import Outgoing, Received, SendFailure
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.committed import committed
from regworkers_core.selection.assign.plan import Plan, Plans, write_seats
from regworkers_core.selection.assign.release import publish_phase, retry_market
from regworkers_core.selection.drains import SELECTIONS
from tests.faults.story import take_events
from tests.support.drains import run
from tests.support.draws import (
    CAMPAIGN,
    add_codes,
    all_completed,
    code_at,
    confirmed,
    findings,
    market,
    market_status,
    plan_of,
    publish,
    record_of,
    result,
)

ROWS = result({"berlin": 12, "paris": 7}, waiting=5, unselected=4, limited=3)
MARKETS = ("berlin", "paris")


@pytest.fixture
def drawn(runtime: Runtime) -> Runtime:
    """A confirmed draw with codes enough, nothing published."""
    confirmed(runtime, ROWS, MARKETS)
    add_codes(runtime, "berlin", 20)
    add_codes(runtime, "paris", 20)
    return runtime


def send(runtime: Runtime, *items: dict[str, Any]) -> None:
    queue = runtime.queue(runtime.names.selection_queue)
    assert queue.send([Outgoing(encode(MessageType.ASSIGN, "test", [item])) for item in items]) == []


def take(runtime: Runtime) -> list[Received]:
    """All chunks off the queue."""
    queue, found = runtime.queue(runtime.names.selection_queue), list[Received]()
    while messages := queue.receive(10, 0, 30):
        found += messages
        queue.delete(messages)
    return found


def items(messages: list[Received]) -> list[dict[str, Any]]:
    return [item for message in messages for item in orjson.loads(message.body)["items"]]


def dead(runtime: Runtime) -> list[Received]:
    return runtime.queue(runtime.names.dead_letter_queue(runtime.names.selection_queue)).receive(10, 0, 30)


def test_rows_have_the_columns_that_dagster_shows(drawn: Runtime) -> None:
    publish(drawn)
    run(drawn, SELECTIONS)
    for name, columns in (("selections", Selection), ("outbox", OutboxRow)):
        row = drawn.database[name].find_one({"marketId": "berlin"})
        # No code of this draw expires.
        assert row is not None and row.keys() == columns.__annotations__.keys() - {"codeExpiresAt"}, name


def test_every_winner_gets_the_code_at_its_place_in_rank_order(drawn: Runtime) -> None:
    facts = publish(drawn)
    assert {name: fact["planned"] for name, fact in facts.items()} == {"berlin": 12, "paris": 7, "-": 12}
    report = run(drawn, SELECTIONS)
    assert (report.counts["claimed"], report.counts["written"], report.counts["enqueued"]) == (19, 19, 31)
    assert findings(drawn, ROWS) == []
    paris = sorted(row.rank for row in ROWS if row.market == "paris")
    for each in drawn.database["selections"].find({"marketId": "paris"}):
        assert each["position"] == paris.index(each["rank"]) + 1
        assert each["code"] == code_at("paris", each["position"])
    assert market_status(drawn) == all_completed(*MARKETS)
    assert drawn.campaigns.require_id(CAMPAIGN).status == "COMPLETED"


def test_the_outbox_has_three_types_and_no_code_and_no_mail(drawn: Runtime) -> None:
    publish(drawn)
    run(drawn, SELECTIONS)
    rows = list(drawn.database["outbox"].find())
    types = [row["type"] for row in rows]
    assert {kind: types.count(kind) for kind in set(types)} == {
        "winner": 19,
        "waitlisted": 5,
        "unselected": 7,
    }
    assert {row["marketId"] for row in rows if row["type"] != "winner"} == {NON_WINNERS}
    assert all(row["notBefore"] == "2026-03-01T12:00:00.000Z" for row in rows)
    assert not any("code" in row or "email" in row for row in rows)


def test_there_is_one_event_for_each_winner_without_its_code(drawn: Runtime) -> None:
    publish(drawn)
    run(drawn, SELECTIONS)
    events = take_events(drawn)
    winners = {row.entry_id for row in ROWS if row.outcome == "WINNER"}
    assert sorted(event["subject"] for event in events) == sorted(f"{CAMPAIGN}:{each}" for each in winners)
    assert {event["type"] for event in events} == {"selection.made"}
    text = orjson.dumps(events).decode()
    assert "BERLIN" not in text and "@" not in text


def test_nothing_is_given_before_the_publication_is_confirmed(drawn: Runtime) -> None:
    drawn.database["draws"].update_one({"_id": CAMPAIGN}, {"$unset": {"phases.1.confirmedAt": ""}})
    with pytest.raises(Exception, match="not confirmed"):
        publish_phase(drawn, CAMPAIGN, 1, token=1, run_id="r")
    assert take(drawn) == [] and market_status(drawn) == {"": "DRAWN"}


def test_a_result_file_that_is_not_the_committed_result_assigns_nothing(drawn: Runtime) -> None:
    other = "0" * 64
    drawn.database["draws"].update_one({"_id": CAMPAIGN}, {"$set": {"phases.1.resultHash": other}})
    with pytest.raises(Exception, match="RESULT_MISMATCH"):
        publish(drawn)
    assert take(drawn) == []


@pytest.mark.parametrize("column", ["entry_id", "previous"])
def test_a_result_file_that_names_other_entries_assigns_nothing(drawn: Runtime, column: str) -> None:
    key = f"pipeline/{CAMPAIGN}/phase-1/outcomes.parquet"
    table = pq.read_table(io.BytesIO(drawn.objects.get_bytes(key)))
    values = table.column(column).to_pylist()
    # Refs, markets and ranks stay; two entries change places, or one winner is said to have won before.
    values[0], values[1] = (values[1], values[0]) if column == "entry_id" else ("WINNER", values[1])
    changed = table.set_column(table.column_names.index(column), column, pa.array(values))
    written = io.BytesIO()
    pq.write_table(changed, written)
    drawn.objects.put_bytes(key, written.getvalue())
    with pytest.raises(Exception, match=r"RESULT_MISMATCH.*outcomes\.parquet"):
        publish(drawn)
    assert take(drawn) == []


def test_publishing_again_with_another_size_of_chunks_keeps_those_that_exist(drawn: Runtime) -> None:
    def sized(winners: int) -> Runtime:
        selection = drawn.settings.selection.model_copy(update={"chunk_winners": winners})
        return Runtime(drawn.settings.model_copy(update={"selection": selection}))

    publish(sized(5))
    first = items(take(drawn))
    assert len(first) == 8
    for size in (2, 50):
        publish(sized(size))
        assert sorted(map(str, items(take(drawn)))) == sorted(map(str, first))


def test_publishing_twice_queues_open_chunks_again_and_changes_no_plan(drawn: Runtime) -> None:
    publish(drawn)
    plan = plan_of(drawn, "berlin")
    first = items(take(drawn))
    # A code that is void by now was planned before: a retry must land on it all the same.
    drawn.database["codes"].update_one({"_id": code_at("berlin", 20)}, {"$set": {"status": "VOID"}})
    publish(drawn)
    assert sorted(map(str, items(take(drawn)))) == sorted(map(str, first))
    assert plan_of(drawn, "berlin") == plan


@pytest.mark.parametrize("name", ["berlin", NON_WINNERS])
def test_a_plan_that_is_not_the_file_that_was_written_assigns_nothing(drawn: Runtime, name: str) -> None:
    publish(drawn)
    key = plan_of(drawn, name)["key"]
    table = pq.read_table(io.BytesIO(drawn.objects.get_bytes(key)))
    # Two entries change places: a friend gets the code, or another fan gets the message that they won.
    values = table.column("entry_id").to_pylist()
    values[0], values[1] = values[1], values[0]
    changed = table.set_column(table.column_names.index("entry_id"), "entry_id", pa.array(values))
    written = io.BytesIO()
    pq.write_table(changed, written)
    drawn.objects.put_bytes(key, written.getvalue())
    run(drawn, SELECTIONS)
    (dead_letter,) = dead(drawn)
    assert dead_letter.attributes["reason"] == "KEY_CONFLICT" and "restore" in dead_letter.attributes["error"]
    assert drawn.selections.count(market(name)) == drawn.outbox.count(market(name)) == 0


def test_codes_void_at_plan_time_are_skipped(drawn: Runtime) -> None:
    void = [code_at("berlin", position) for position in (1, 5)]
    drawn.database["codes"].update_many({"_id": {"$in": void}}, {"$set": {"status": "VOID"}})
    publish(drawn)
    run(drawn, SELECTIONS)
    assert findings(drawn, ROWS) == []
    given = sorted(each["position"] for each in drawn.database["selections"].find({"marketId": "berlin"}))
    assert given == [2, 3, 4, *range(6, 15)]


def test_chunks_are_cut_by_size_and_assigned_in_any_order_and_number(drawn: Runtime) -> None:
    small = Runtime(
        drawn.settings.model_copy(
            update={"selection": drawn.settings.selection.model_copy(update={"chunk_winners": 5})}
        )
    )
    publish(small)
    chunks = items(take(small))
    assert sorted((each["marketId"], each["first"], each["last"]) for each in chunks) == [
        ("-", 1, 5), ("-", 6, 10), ("-", 11, 12),
        ("berlin", 1, 5), ("berlin", 6, 10), ("berlin", 11, 12),
        ("paris", 1, 5), ("paris", 6, 7),
    ]  # fmt: skip
    send(drawn, *reversed(chunks), *chunks)
    report = run(drawn, SELECTIONS)
    assert report.counts["received"] == 16 and report.counts["applied"] == 8
    assert findings(drawn, ROWS) == []
    assert market_status(drawn) == all_completed(*MARKETS)
    small.mongo.close()


def test_two_processors_on_the_same_chunk_give_every_code_once(drawn: Runtime) -> None:
    publish(drawn)
    chunks = items(take(drawn))
    send(drawn, *chunks)
    again: list[str] = []

    def second(step: str) -> None:
        # Between the first one's claim and its selections, another processor does all of it.
        if step == "selections.after_claim" and not again:
            again.append(step)
            send(drawn, *chunks)
            run(drawn, SELECTIONS)

    run(drawn, SELECTIONS, on_step=second)
    assert again and findings(drawn, ROWS) == []
    assert market_status(drawn) == all_completed(*MARKETS)


@pytest.mark.parametrize("status", ["ASSIGNED", "REDEEMED"])
def test_a_code_that_is_already_the_winners_is_no_conflict(drawn: Runtime, status: str) -> None:
    publish(drawn)
    first = min((row for row in ROWS if row.market == "berlin"), key=lambda row: row.rank)
    drawn.database["codes"].update_one(
        {"_id": code_at("berlin", 1)},
        {"$set": {"status": status, "ref": first.ref, "entryId": first.entry_id, "phase": 1}},
    )
    report = run(drawn, SELECTIONS)
    assert report.counts["dead_lettered"] == 0 and findings(drawn, ROWS) == []
    assert drawn.database["codes"].find_one({"_id": code_at("berlin", 1)})["status"] == status


@pytest.mark.parametrize(
    "change", [{"status": "ASSIGNED", "ref": "stranger"}, {"status": "VOID"}, {"marketId": "paris"}]
)
def test_a_code_taken_by_a_stranger_stops_its_chunk_before_any_selection(
    drawn: Runtime, change: dict[str, str]
) -> None:
    publish(drawn)
    drawn.database["codes"].update_one({"_id": code_at("berlin", 3)}, {"$set": {**change, "position": 9003}})
    report = run(drawn, SELECTIONS)
    assert report.counts["dead_lettered"] == 1
    (dead_letter,) = dead(drawn)
    assert dead_letter.attributes["reason"] == "CODE_CONFLICT"
    assert "position 3" in dead_letter.attributes["error"] and "BERLIN" not in dead_letter.attributes["error"]
    assert drawn.selections.count(market("berlin")) == 0 and drawn.outbox.count(market("berlin")) == 0
    assert market_status(drawn)["berlin"] == "ASSIGNING" and market_status(drawn)["paris"] == "COMPLETED"
    # Set right, the market goes on.
    fixed = {"$set": {"status": "AVAILABLE", "marketId": "berlin", "position": 3}, "$unset": {"ref": ""}}
    drawn.database["codes"].update_one({"_id": code_at("berlin", 3)}, fixed)
    assert retry_market(drawn, CAMPAIGN, "berlin")["queued"] == 1
    run(drawn, SELECTIONS)
    assert findings(drawn, ROWS) == [] and market_status(drawn) == all_completed(*MARKETS)


def test_a_chunk_of_another_result_is_a_dead_letter(drawn: Runtime) -> None:
    publish(drawn)
    (chunk,) = [each for each in items(take(drawn)) if each["marketId"] == "berlin"]
    send(drawn, {**chunk, "resultHash": "f" * 64})
    assert run(drawn, SELECTIONS).counts["dead_lettered"] == 1
    assert [dead_letter.attributes["reason"] for dead_letter in dead(drawn)] == ["RESULT_MISMATCH"]
    assert drawn.database["selections"].find_one() is None


NEVER_PLANNED: list[tuple[dict[str, Any], str]] = [
    ({"last": 11}, "KEY_CONFLICT"),
    ({"chunk": 7}, "KEY_CONFLICT"),
    ({"marketId": "rome"}, "RESULT_MISMATCH"),
    ({"campaignId": "winter"}, "RESULT_MISMATCH"),
    ({"phase": 2}, "RESULT_MISMATCH"),
    ({"first": 0}, "INVALID_BODY"),
    ({"first": True}, "INVALID_BODY"),
    ({"last": None}, "INVALID_BODY"),
    ({"marketId": "a|b"}, "INVALID_BODY"),
    ({"resultHash": "F" * 64}, "INVALID_BODY"),
]


def test_a_chunk_that_was_never_planned_is_a_dead_letter_with_its_reason(drawn: Runtime) -> None:
    publish(drawn)
    (chunk,) = [each for each in items(take(drawn)) if each["marketId"] == "berlin"]
    send(drawn, *({**chunk, **change} for change, _ in NEVER_PLANNED))
    run(drawn, SELECTIONS)
    assert sorted(
        (str(items([dead_letter])[0]), dead_letter.attributes["reason"]) for dead_letter in dead(drawn)
    ) == sorted((str({**chunk, **change}), reason) for change, reason in NEVER_PLANNED)
    assert drawn.database["selections"].find_one() is None


@pytest.mark.parametrize(
    ("collection", "change"),
    [("selections", {"code": "OTHER"}), ("outbox", {"type": "unselected"}), ("outbox", {"resultHash": "0"})],
)
def test_the_same_key_with_other_parameters_is_an_error_and_not_a_replay(
    drawn: Runtime, collection: str, change: dict[str, str]
) -> None:
    publish(drawn)
    chunks = items(take(drawn))
    send(drawn, *chunks)
    run(drawn, SELECTIONS)
    drawn.database[collection].update_one({"marketId": "berlin"}, {"$set": change})
    drawn.chunks.reopen(market("berlin"))
    send(drawn, *chunks)
    run(drawn, SELECTIONS)
    assert [dead_letter.attributes["reason"] for dead_letter in dead(drawn)] == ["KEY_CONFLICT"]


def test_a_plan_that_is_made_again_leaves_the_first_one_as_it_is(drawn: Runtime) -> None:
    rows = [each for each in ROWS if each.market == "berlin"]
    record = record_of(drawn)

    def plan(first: int) -> Plan:
        with committed(drawn, CAMPAIGN, 1, record.latest.fields) as of_draw:
            codes = drawn.codes.behind(CAMPAIGN, "berlin", first, len(rows))
            return write_seats(drawn.objects, market("berlin"), of_draw, codes, behind=first)

    one, other = plan(0), plan(5)
    given = [each.code for each in Plans(drawn.objects).rows(one, 1, one.rows)]
    assert one.key != other.key and given == [code_at("berlin", 1 + each) for each in range(len(rows))]


def test_a_chunk_whose_events_are_refused_is_not_done_and_a_rerun_sends_them(
    drawn: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(drawn)
    chunks, queue = items(take(drawn)), drawn.queue(drawn.names.analytics_queue)
    send(drawn, *chunks)
    with monkeypatch.context() as refusing:
        refusing.setattr(queue, "send", lambda messages, **_: [SendFailure(0, "busy", False)])
        report = run(drawn, SELECTIONS)
    done = {"doneAt": {"$exists": True}, "marketId": {"$ne": NON_WINNERS}}
    assert report.counts["returned"] > 0
    assert drawn.database["selection_chunks"].count_documents(done) == 0
    # Those that went back stay hidden for a second or two.
    send(drawn, *chunks)
    run(drawn, SELECTIONS)
    winners = {row.entry_id for row in ROWS if row.outcome == "WINNER"}
    assert {event["subject"] for event in take_events(drawn)} == {f"{CAMPAIGN}:{each}" for each in winners}
    assert findings(drawn, ROWS) == [] and market_status(drawn) == all_completed(*MARKETS)
