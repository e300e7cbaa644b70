"""The demand table's adapter over a client that answers partly, late or not at all."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.adapters.aws.demand_table import DemandTable
from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.domain.entry import Entry
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import ItemFailure, TransientFailure, UsageError
from regworkers_core.engine.dependency import PART_ATTEMPTS
from tests.adapters.fakes import FakeClient, Sleeps, client_error, dependency, pauses
from tests.support.entries import item

TABLE = "demand-table"
KEYS = [EntryKey("c", f"e{number}") for number in range(250)]
AT = "2026-11-25T08:00:00.000Z"


def table(client: FakeClient, sleep: Sleeps | None = None, attempts: int = 3) -> DemandTable:
    made, policy = dependency("dynamodb", classify_aws("dynamodb")), pauses(attempts)
    return DemandTable(client, made, TABLE, policy=policy, sleep=sleep or Sleeps())


def answer(keys: list[dict[str, Any]], processed: int) -> dict[str, Any]:
    """The items of the first `processed` keys; the others stay unprocessed."""
    responses = [
        {**attributes(item(EntryKey("c", raw["SK"]["S"].removeprefix("ENTRY#")))), **raw}
        for raw in keys[:processed]
    ]
    left = {TABLE: {"Keys": keys[processed:]}} if keys[processed:] else {}
    return {"Responses": {TABLE: responses}, "UnprocessedKeys": left}


def entry(number: int) -> Entry:
    key = KEYS[number]
    return Entry.parse(key, item(key, version=number + 1))


def test_a_hundred_keys_go_into_a_call_and_every_read_is_consistent() -> None:
    client = FakeClient(batch_get_item=lambda RequestItems: answer(RequestItems[TABLE]["Keys"], 100))
    found = table(client).get(KEYS)
    assert set(found) == set(KEYS)
    requests = [call["RequestItems"][TABLE] for call in client.of("batch_get_item")]
    assert [len(request["Keys"]) for request in requests] == [100, 100, 50]
    assert all(request["ConsistentRead"] is True for request in requests)


def test_a_key_that_dynamodb_would_refuse_is_absent_and_fails_no_call() -> None:
    """Of ids that others stored or typed: one of them would fail the read of its hundred."""
    client = FakeClient(batch_get_item=lambda RequestItems: answer(RequestItems[TABLE]["Keys"], 100))
    odd = [EntryKey("c", "x" * 5000), EntryKey("c" * 5000, "e"), EntryKey("c", "\ud800")]
    other = EntryKey("a:b", "e")
    assert set(table(client).get([*odd, KEYS[0]])) == {KEYS[0]}
    table(client).get([other])
    asked = [key for call in client.of("batch_get_item") for key in call["RequestItems"][TABLE]["Keys"]]
    assert [key["SK"]["S"] for key in asked] == [KEYS[0].sk, other.sk], "what can be stored is asked for"


def test_unprocessed_keys_are_asked_again_with_backoff_until_all_are_read() -> None:
    processed = itertools.chain([40, 40], itertools.repeat(100))
    client = FakeClient(
        batch_get_item=lambda RequestItems: answer(RequestItems[TABLE]["Keys"], next(processed))
    )
    sleep = Sleeps()
    assert set(table(client, sleep).get(KEYS[:100])) == set(KEYS[:100])
    asked = [len(call["RequestItems"][TABLE]["Keys"]) for call in client.of("batch_get_item")]
    assert asked == [100, 60, 20]
    assert len(sleep.slept) == 2 and 0 <= sleep.slept[0] <= 1 and 0 <= sleep.slept[1] <= 2


def test_keys_that_stay_unprocessed_are_a_transient_failure_and_not_an_absence() -> None:
    client = FakeClient(batch_get_item=lambda RequestItems: answer(RequestItems[TABLE]["Keys"], 0))
    with pytest.raises(TransientFailure, match="7 keys stayed unprocessed"):
        table(client).get(KEYS[:7])
    assert len(client.calls) == PART_ATTEMPTS


@pytest.mark.parametrize("share", [0.05, 0.2, 0.8])
def test_a_busy_table_is_read_whole_while_it_makes_progress(share: float) -> None:
    chance = random.Random(7)

    def some(RequestItems: dict[str, Any]) -> dict[str, Any]:
        asked = RequestItems[TABLE]["Keys"]
        return answer(asked, sum(chance.random() >= share for _ in asked))

    made = table(FakeClient(batch_get_item=some))
    assert set(made.get(KEYS)) == set(KEYS)
    assert made._dependency.throttles and not made._dependency.breaker.is_open


def test_an_absent_key_is_absent_from_the_answer() -> None:
    client = FakeClient(batch_get_item=[{"Responses": {TABLE: []}, "UnprocessedKeys": {}}])
    assert table(client).get(KEYS[:2]) == {}


@pytest.mark.parametrize(
    "error",
    [client_error("ProvisionedThroughputExceededException"), ReadTimeoutError(endpoint_url="http://x")],
)
def test_throttling_and_time_outs_are_retried_and_then_transient(error: Exception) -> None:
    served = FakeClient(
        batch_get_item=[error, error, lambda RequestItems: answer(RequestItems[TABLE]["Keys"], 1)]
    )
    assert set(table(served).get(KEYS[:1])) == set(KEYS[:1])
    throttled = FakeClient(batch_get_item=[error] * 3)
    with pytest.raises(TransientFailure) as caught:
        table(throttled).get(KEYS[:1])
    assert caught.value.dependency == "dynamodb"


def test_a_missing_table_says_what_to_do() -> None:
    client = FakeClient(describe_table=[client_error("ResourceNotFoundException")])
    with pytest.raises(UsageError, match="regworkers provision"):
        table(client).probe()


# Clearing the flag


def refusing(*numbers: int, code: str, times: int = 1) -> Any:
    """Refuses the statements of these entries with `code`, `times` times each."""
    left = dict.fromkeys((KEYS[number].sk for number in numbers), times)

    def answer(Statements: list[Any]) -> dict[str, Any]:
        responses: list[dict[str, Any]] = []
        for each in Statements:
            (sk,) = (value["S"] for value in each["Parameters"] if value.get("S", "").startswith("ENTRY#"))
            left[sk] = left.get(sk, 0) - 1
            responses.append({"Error": {"Code": code}} if left[sk] >= 0 else {})
        return {"Responses": responses}

    return answer


def statements(client: FakeClient) -> list[int]:
    """How many each call had."""
    return [len(call["Statements"]) for call in client.of("batch_execute_statement")]


def table_and_sleep(client: FakeClient) -> tuple[DemandTable, Sleeps]:
    sleep = Sleeps()
    return table(client, sleep), sleep


def cleared(client: FakeClient, count: int) -> list[Entry]:
    return table(client).clear_flags([entry(number) for number in range(count)], AT).changed


def no_errors(Statements: list[Any]) -> dict[str, Any]:
    return {"Responses": [{} for _ in Statements]}


def test_flags_are_cleared_in_batches_of_25_under_the_condition_that_the_state_is_as_read() -> None:
    client = FakeClient(batch_execute_statement=no_errors)
    assert cleared(client, 60) == []
    batches = [call["Statements"] for call in client.of("batch_execute_statement")]
    assert [len(batch) for batch in batches] == [25, 25, 10]
    statement = batches[0][3]
    assert statement["Statement"].startswith(f'UPDATE "{TABLE}" SET needsReplication=false')
    assert statement["Statement"].endswith(
        'WHERE PK=? AND SK=? AND "createdAt"=? AND "version"=? AND "updatedAt"=?'
    )
    read = entry(3).order_as_read
    assert statement["Parameters"][0] == {"N": "4"}
    assert statement["Parameters"][-2] == {"N": str(read["version"])}


def test_a_field_that_was_absent_must_still_be_absent() -> None:
    client = FakeClient(batch_execute_statement=no_errors)
    key = KEYS[0]
    bare = Entry.parse(key, item(key, version=None, createdAt=None))
    table(client).clear_flags([bare], AT)
    (statement,) = client.of("batch_execute_statement")[0]["Statements"]
    assert '"createdAt" IS MISSING AND "version" IS MISSING AND "updatedAt"=?' in statement["Statement"]


def test_a_changed_or_removed_entry_is_reported_and_the_others_are_cleared() -> None:
    client = FakeClient(batch_execute_statement=refusing(1, 26, code="ConditionalCheckFailed"))
    assert [each.key for each in cleared(client, 30)] == [KEYS[1], KEYS[26]]
    assert len(client.calls) == 2


BUSY = ["ThrottlingError", "ProvisionedThroughputExceeded", "RequestLimitExceeded"]


@pytest.mark.parametrize("code", [*BUSY, "InternalServerError", "TransactionConflict"])
def test_throttled_statements_are_repeated_alone_and_delay_no_other(code: str) -> None:
    client = FakeClient(batch_execute_statement=refusing(1, 26, code=code, times=4))
    made, sleep = table_and_sleep(client)
    assert made.clear_flags([entry(number) for number in range(60)], AT) == ([], [])
    assert statements(client) == [25, 25, 10, 2, 2, 2, 2]
    assert len(sleep.slept) == 4 and all(0 <= each <= 4 for each in sleep.slept)
    assert made._dependency.throttles == (8 if code in BUSY else 0)


def test_a_statement_that_is_refused_fifteen_times_is_left_over_and_the_others_are_cleared() -> None:
    client = FakeClient(batch_execute_statement=refusing(1, code="ThrottlingError", times=99))
    changed, failed = table(client).clear_flags([entry(number) for number in range(30)], AT)
    assert statements(client) == [25, 5, *[1] * (PART_ATTEMPTS - 1)]
    assert changed == [] and [each.key for each, _ in failed] == [KEYS[1]]
    assert isinstance(failed[0][1], TransientFailure) and failed[0][1].throttled


def test_a_call_that_fails_as_a_whole_leaves_its_own_entries_over() -> None:
    error = client_error("ProvisionedThroughputExceededException")
    client = FakeClient(batch_execute_statement=[no_errors, error, error, error, no_errors])
    changed, failed = table(client).clear_flags([entry(number) for number in range(60)], AT)
    assert changed == [] and [each.key for each, _ in failed] == KEYS[25:50]
    assert {type(failure) for _, failure in failed} == {TransientFailure}


@pytest.mark.parametrize("code", ["ValidationError", "ItemCollectionSizeLimitExceeded", "Unheard"])
def test_a_refused_statement_is_the_failure_of_its_entry(code: str) -> None:
    client = FakeClient(batch_execute_statement=refusing(1, code=code))
    ((failed, failure),) = table(client).clear_flags([entry(0), entry(1)], AT).failed
    assert failed.key == KEYS[1] and isinstance(failure, ItemFailure) and code in failure.error
    assert len(client.calls) == 1


@pytest.mark.parametrize(
    ("code", "advice"), [("AccessDenied", "check the role"), ("ResourceNotFound", "regworkers provision")]
)
def test_access_that_is_refused_and_a_missing_table_are_the_operators(code: str, advice: str) -> None:
    client = FakeClient(batch_execute_statement=refusing(1, code=code))
    with pytest.raises(UsageError, match=advice):
        table(client).clear_flags([entry(0), entry(1)], AT)
