"""Reading an object as a stream: piece by piece on the run's S3, and over broken connections."""

from __future__ import annotations

import io
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from regworkers_core.adapters.aws.objects import PIECE_BYTES, MissingObject, ObjectStore, classify_objects
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.runtime import Runtime
from tests.adapters.fakes import FakeClient, client_error, dependency

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
