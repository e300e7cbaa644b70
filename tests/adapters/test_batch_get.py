"""The short way to BatchGetItem: it asks as boto3 asks, reads what boto3 reads, and fails as boto3 fails."""

from __future__ import annotations

import json
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from regworkers_core.adapters.aws.attribute_values import plain_item
from regworkers_core.adapters.aws.batch_get import BatchGet
from regworkers_core.adapters.aws.clients import AwsClients, classify_aws
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.runtime import Runtime
from regworkers_core.settings import AwsSettings
from tests.adapters.test_answers import EVERY_TYPE, KEY
from tests.services.servers import Scripted, answer, nobody_listens
from tests.services.test_requests import self_signed

ASKED = {"table": {"Keys": [KEY, {"PK": {"S": "\ud800"}, "SK": {"S": "ż"}}], "ConsistentRead": True}}


@pytest.fixture
def server() -> Iterator[Scripted]:
    made = Scripted()
    made.answers = [answer(document={"Responses": {}, "UnprocessedKeys": {}})]
    yield made
    made.stop()


def client(url: str, **more: Any) -> Any:
    settings = {"endpoint_url": url, "access_key_id": "test", "secret_access_key": "test", **more}
    return AwsClients(AwsSettings(**settings)).client("dynamodb", read_timeout_seconds=0.3)


def meaning(get: BatchGet) -> Exception:
    """What comes of asking who does not answer as it should."""
    with pytest.raises((ClientError, BotoCoreError)) as raised:
        get(ASKED)
    return classify_aws("dynamodb")(raised.value)


def test_it_reads_what_boto3_reads(runtime: Runtime) -> None:
    runtime.dynamodb.put_item(TableName=runtime.names.demand_table, Item=EVERY_TYPE)
    request = {runtime.names.demand_table: {"Keys": [KEY], "ConsistentRead": True}}
    bare = boto3.client(
        "dynamodb",
        endpoint_url=runtime.settings.aws.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    (ours,) = BatchGet(runtime.dynamodb)(request)["Responses"][runtime.names.demand_table]
    (theirs,) = bare.batch_get_item(RequestItems=request)["Responses"][runtime.names.demand_table]
    assert plain_item(ours) == plain_item(theirs)


def test_it_asks_as_boto3_asks(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    # A role's, which carry a token.
    for name, value in (
        ("ACCESS_KEY_ID", "test"),
        ("SECRET_ACCESS_KEY", "s"),
        ("SESSION_TOKEN", "temporary"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    asking = client(server.url, access_key_id=None, secret_access_key=None)
    asking.batch_get_item(RequestItems=ASKED)
    BatchGet(asking)(ASKED)
    theirs, ours = server.asked
    assert ours.path == theirs.path and json.loads(ours.body) == json.loads(theirs.body)
    same = ("x-amz-target", "content-type", "user-agent", "x-amz-security-token", "host")
    assert {name: ours.headers.get(name) for name in same} == {
        name: theirs.headers.get(name) for name in same
    }
    scope = "/us-east-1/dynamodb/aws4_request, SignedHeaders="
    for each in (ours, theirs):
        assert each.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=test/")
        assert scope in each.headers["authorization"]


def test_it_is_refused_as_boto3_is_refused(runtime: Runtime) -> None:
    request = {"nowhere": {"Keys": [KEY]}}
    errors = []
    for ask in (
        lambda: runtime.dynamodb.batch_get_item(RequestItems=request),
        lambda: BatchGet(runtime.dynamodb)(request),
    ):
        with pytest.raises(ClientError) as raised:
            ask()
        errors.append((str(raised.value), raised.value.response["ResponseMetadata"]["HTTPStatusCode"]))
    assert errors[0] == errors[1] and "ResourceNotFoundException" in errors[0][0]


@pytest.mark.parametrize(
    ("status", "body", "throttled"),
    [
        (400, b'{"__type": "x#ProvisionedThroughputExceededException", "message": "slow"}', True),
        (500, b'{"__type": "x#InternalServerError"}', False),
        (503, b"<html>busy</html>", False),
        (200, b"<html>who asks?</html>", False),
        (200, b'["no", "object"]', False),
        (200, b"", False),
    ],
)
def test_who_is_busy_broken_or_somebody_else_is_worth_another_attempt(
    server: Scripted, status: int, body: bytes, throttled: bool
) -> None:
    server.answers = [answer(status, body)]
    failure = meaning(BatchGet(client(server.url)))
    assert isinstance(failure, TransientFailure) and failure.throttled is throttled


def test_an_answer_that_was_damaged_on_its_way_is_not_believed(server: Scripted) -> None:
    body = b'{"Responses": {"table": []}}'
    get = BatchGet(client(server.url))
    server.answers = [answer(200, body, x_amz_crc32=str(zlib.crc32(body)))]
    assert get(ASKED) == {"Responses": {"table": []}}
    server.answers = [answer(200, body, x_amz_crc32=str(zlib.crc32(body) ^ 1))]
    failure = meaning(get)
    assert isinstance(failure, TransientFailure) and failure.error == "ChecksumError"


def test_text_that_the_fast_reader_refuses_is_read_all_the_same(server: Scripted) -> None:
    server.answers = [answer(200, b'{"Responses": {"t": [{"SK": {"S": "\\ud800"}}]}}')]
    assert BatchGet(client(server.url))(ASKED)["Responses"] == {"t": [{"SK": {"S": "\ud800"}}]}


@pytest.mark.parametrize("pieces", [[], [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"]])
def test_who_falls_silent_is_waited_for_no_longer_than_the_client_waits(
    server: Scripted, pieces: list[bytes]
) -> None:
    server.answers = [pieces]
    failure = meaning(BatchGet(client(server.url)))
    assert isinstance(failure, TransientFailure) and "Timeout" in failure.error


def test_who_is_not_there_or_hangs_up_is_worth_another_attempt() -> None:
    failure = meaning(BatchGet(client(nobody_listens())))
    assert isinstance(failure, TransientFailure) and failure.error == "EndpointConnectionError"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        get = BatchGet(client(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        listener.close()
        assert isinstance(meaning(get), TransientFailure)


def test_a_connection_that_the_server_has_closed_is_opened_again(server: Scripted) -> None:
    get = BatchGet(client(server.url))
    get(ASKED)
    server.close_connections()
    assert get(ASKED)["Responses"] == {}


def test_without_credentials_nobody_is_asked(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    failure = meaning(BatchGet(client(server.url, access_key_id=None, secret_access_key=None)))
    assert isinstance(failure, UsageError) and "no AWS credentials" in str(failure)
    assert server.asked == []


def test_a_certificate_is_checked_against_the_bundle_that_botocore_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, tls = self_signed(tmp_path)
    server = Scripted(tls)
    server.answers = [answer(document={"Responses": {}})]
    failure = meaning(BatchGet(client(server.url)))
    assert isinstance(failure, TransientFailure) and failure.error == "SSLError" and server.asked == []
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    assert BatchGet(client(server.url))(ASKED) == {"Responses": {}}
    server.stop()
