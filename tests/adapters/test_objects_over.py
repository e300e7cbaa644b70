"""Writes over exactly what was read, and reading piece by piece, on the real store and over broken connections."""

from __future__ import annotations

import io
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

from regworkers_core.adapters.aws.objects import PIECE_BYTES, MissingObject, ObjectStore, classify_objects
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Dependency, RetryPolicy
from regworkers_core.runtime import Runtime
from tests.adapters.fakes import FakeClient, client_error, dependency

KEY = "archive/test.json"


@pytest.fixture
def objects(shared: Runtime) -> ObjectStore:
    shared.objects.delete(KEY)
    return shared.objects


def test_only_the_first_of_two_writes_over_the_same_state_is_taken(objects: ObjectStore) -> None:
    assert objects.get_tagged(KEY) is None
    first = objects.put_over(KEY, b"1", None)
    assert first is not None
    assert objects.put_over(KEY, b"other", None) is None
    second = objects.put_over(KEY, b"2", first)
    assert second is not None
    assert objects.put_over(KEY, b"3", first) is None
    found = objects.get_tagged(KEY)
    assert found is not None and found[:2] == (b"2", second)


def test_a_deleted_object_is_not_replaced(objects: ObjectStore) -> None:
    tag = objects.put_over(KEY, b"1", None)
    objects.delete(KEY)
    objects.delete(KEY)
    assert objects.put_over(KEY, b"2", tag) is None
    assert not objects.exists(KEY)


class LosesAnswers:
    """A client whose first write arrives and whose answer does not."""

    def __init__(self, client: Any) -> None:
        self._client, self._lost = client, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def put_object(self, **arguments: Any) -> Any:
        answer = self._client.put_object(**arguments)
        if not self._lost:
            self._lost = True
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1")
        return answer


def test_a_write_whose_answer_was_lost_is_recognised_by_its_content(
    shared: Runtime, objects: ObjectStore
) -> None:
    policy = RetryPolicy(attempts=2, first_cap_seconds=0, last_cap_seconds=0)
    client = LosesAnswers(shared.aws.client("s3"))
    losing = ObjectStore(client, Dependency("s3", classify_objects, policy=policy), objects.bucket)
    tag = losing.put_over(KEY, b"mine", None)
    found = objects.get_tagged(KEY)
    assert tag is not None and found is not None and found[:2] == (b"mine", tag)


HEAD = {"ETag": '"1"', "ContentLength": PIECE_BYTES + 5}


def body(data: bytes) -> dict[str, Any]:
    return {"Body": io.BytesIO(data)}


def store(**answers: list[Any]) -> tuple[FakeClient, ObjectStore]:
    client = FakeClient(**answers)
    return client, ObjectStore(client, dependency("s3", classify_objects), "bucket")


def test_an_object_of_several_pieces_an_empty_one_and_none_at_all(runtime: Runtime) -> None:
    objects, data = runtime.objects, b"0123456789" * (PIECE_BYTES // 8)
    objects.put_bytes("large", data)
    objects.put_bytes("empty", b"")
    with objects.open("large") as stream:
        assert stream.read() == data
    with objects.open("empty") as stream:
        assert stream.read() == b""
    with pytest.raises(MissingObject, match="does not exist"):
        objects.open("none")


def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed_up(runtime: Runtime) -> None:
    objects = runtime.objects
    objects.put_bytes("list", b"a" * (PIECE_BYTES + 1))
    with objects.open("list") as stream:
        assert stream.read(10) == b"a" * 10
        objects.put_bytes("list", b"b" * (PIECE_BYTES + 1))
        with pytest.raises(UsageError, match="was replaced while it was read"):
            stream.read()


def test_a_broken_connection_costs_its_piece_and_no_more() -> None:
    timeout = ReadTimeoutError(endpoint_url="http://x")
    client, objects = store(
        head_object=[HEAD], get_object=[body(b"x" * PIECE_BYTES), timeout, body(b"end!!")]
    )
    with objects.open("key") as stream:
        assert stream.read() == b"x" * PIECE_BYTES + b"end!!"
    last = client.of("get_object")[-1]
    assert (last["Range"], last["IfMatch"]) == (f"bytes={PIECE_BYTES}-{PIECE_BYTES + 4}", '"1"')


def test_a_store_that_stays_unavailable_midway_is_transient() -> None:
    busy = client_error("SlowDown", 503)
    _, objects = store(head_object=[HEAD], get_object=[body(b"x" * PIECE_BYTES), busy, busy, busy])
    with objects.open("key") as stream, pytest.raises(TransientFailure, match="SlowDown"):
        stream.read()
