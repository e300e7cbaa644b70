"""The invites' adapter over a client that answers partly, late or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from regworkers_core.adapters.aws.claims import Invites
from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.domain.claim import Invite, InviteType
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import PART_ATTEMPTS
from tests.adapters.fakes import FakeClient, Sleeps, client_error, dependency, pauses

TABLE = "demand-table"
INVITES = [Invite("c", InviteType.EMAIL, f"user{number}@example.com", 2_000_000_000) for number in range(60)]
KEYS = [invite.table_key for invite in INVITES]
BUSY = client_error("ProvisionedThroughputExceededException")


def table(client: FakeClient, sleep: Sleeps | None = None, attempts: int = 3) -> Invites:
    made, policy = dependency("dynamodb", classify_aws("dynamodb")), pauses(attempts)
    return Invites(client, made, TABLE, policy=policy, sleep=sleep or Sleeps())


class Partly:
    """Writes the first `takes` of each request and returns the others as unprocessed."""

    def __init__(self, takes: int) -> None:
        self.takes, self.written = takes, list[str]()

    def __call__(self, RequestItems: dict[str, Any]) -> dict[str, Any]:
        requests = RequestItems[TABLE]
        assert len(requests) <= 25
        self.written += [each["PutRequest"]["Item"]["SK"]["S"] for each in requests[: self.takes]]
        left = requests[self.takes :]
        return {"UnprocessedItems": {TABLE: left} if left else {}}


def test_twenty_five_invites_go_into_a_call() -> None:
    client = FakeClient(batch_write_item=Partly(takes=25))
    table(client).write(INVITES)
    sizes = [len(call["RequestItems"][TABLE]) for call in client.of("batch_write_item")]
    assert sizes == [25, 25, 10]


def test_unprocessed_invites_are_written_again_after_a_pause_while_there_is_progress() -> None:
    partly, sleep = Partly(takes=2), Sleeps()
    table(FakeClient(batch_write_item=partly), sleep, attempts=2).write(INVITES)
    assert partly.written == [key[1] for key in KEYS], "each once, whatever was left"
    assert len(sleep.slept) == 12 + 12 + 4


def test_a_table_that_accepts_nothing_is_transient() -> None:
    partly, sleep = Partly(takes=0), Sleeps()
    client = FakeClient(batch_write_item=partly)
    with pytest.raises(TransientFailure, match="25 invites stayed unprocessed") as failure:
        table(client, sleep).write(INVITES)
    assert len(client.calls) == PART_ATTEMPTS and len(sleep.slept) == PART_ATTEMPTS - 1
    assert "example.com" not in str(failure.value)


def test_throttling_is_retried_by_the_one_policy_and_then_transient() -> None:
    client = FakeClient(batch_write_item=[BUSY, BUSY, {}])
    table(client).write(INVITES[:5])
    assert len(client.calls) == 3
    with pytest.raises(TransientFailure, match="ProvisionedThroughputExceeded"):
        table(FakeClient(batch_write_item=[BUSY] * 3)).write(INVITES[:5])


def test_no_answer_is_transient_and_a_missing_table_is_the_operators() -> None:
    timeout = ReadTimeoutError(endpoint_url="http://x")
    with pytest.raises(TransientFailure, match="ReadTimeoutError"):
        table(FakeClient(batch_get_item=[timeout] * 3)).ttls(KEYS)
    gone = [client_error("ResourceNotFoundException")]
    with pytest.raises(UsageError, match="run `regworkers provision`"):
        table(FakeClient(query=gone)).are_there("c")


def test_a_count_follows_the_pages_and_carries_no_invite_over_the_wire() -> None:
    next_key = {"PK": {"S": "CAMPAIGN#c"}, "SK": {"S": "INVITE#email#m"}}
    pages = [{"Count": 3, "ScannedCount": 5, "LastEvaluatedKey": next_key}, {"Count": 0, "ScannedCount": 1}]
    client = FakeClient(query=pages)
    assert list(table(client).count("c", InviteType.EMAIL, 5.5)) == [(3, 2), (0, 1)]
    first, second = client.of("query")
    assert first["Select"] == "COUNT" and first["ConsistentRead"] is True
    assert "ExclusiveStartKey" not in first and second["ExclusiveStartKey"] == next_key


def test_more_than_a_page_of_invites_are_not_few() -> None:
    item = {"PK": {"S": "CAMPAIGN#c"}, "SK": {"S": "INVITE#email#a"}}
    old = {**item, "ttl": {"S": "soon"}}
    client = FakeClient(query=[{"Items": [old], "LastEvaluatedKey": item}, {"Items": [old]}, {"Items": []}])
    made = table(client)
    assert made.few("c", InviteType.EMAIL) is None
    assert made.few("c", InviteType.EMAIL) == {("CAMPAIGN#c", "INVITE#email#a"): 0}, "of an earlier tool"
    assert made.few("c", InviteType.EMAIL) == {}
