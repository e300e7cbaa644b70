"""Direct calls send what boto3 sends and fail as boto3 fails. test_json_answers compares what they read."""

from __future__ import annotations

import inspect
import json
import os
import socket
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import URLLib3Session
from botocore.parsers import ResponseParser
from botocore.signers import RequestSigner

from regworkers_core.adapters.aws.clients import _DIRECT, AwsClients, UnreadableAnswer, classify_aws
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.runtime import Runtime
from regworkers_core.settings import AwsSettings
from tests.adapters.http.servers import Scripted, answer, dead_address
from tests.adapters.http.test_requests import self_signed
from tests.adapters.test_json_answers import EVERY_TYPE, KEY
from tests.support.clients import unshare

ASKED = {"table": {"Keys": [KEY, {"PK": {"S": "\ud800"}, "SK": {"S": "ż"}}], "ConsistentRead": True}}


@contextmanager
def closing_server(made: Scripted) -> Iterator[Scripted]:
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def server() -> Iterator[Scripted]:
    with closing_server(Scripted()) as made:
        made.answers = [answer(document={"Responses": {}, "UnprocessedKeys": {}})]
        yield made


def client(url: str, service: str = "dynamodb", **more: Any) -> Any:
    settings = {"endpoint_url": url, "access_key_id": "test", "secret_access_key": "test", **more}
    return AwsClients(AwsSettings(**settings)).client(service, read_timeout_seconds=0.3)


@pytest.fixture(autouse=True)
def _own_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    unshare(monkeypatch)


def through_boto3(made: Any) -> Any:
    """The client as boto3 has made it."""
    del made._make_api_call
    return made


def meaning(asking: Any) -> Exception:
    """What comes of asking who does not answer as it should."""
    with pytest.raises((ClientError, BotoCoreError)) as raised:
        asking.batch_get_item(RequestItems=ASKED)
    return classify_aws("dynamodb")(raised.value)


def test_botocore_still_has_what_direct_calls_use() -> None:
    # If this fails after an upgrade: compare both ways again, see docs/decisions/0011-direct-calls.md.
    made = client("http://127.0.0.1:9")
    assert list(inspect.signature(type(made)._make_api_call).parameters) == [
        "self",
        "operation_name",
        "api_params",
    ]
    assert type(made._endpoint.http_session) is URLLib3Session
    assert type(made._request_signer) is RequestSigner
    parameters = {
        RequestSigner.sign: ["self", "operation_name", "request"],
        URLLib3Session.send: ["self", "request"],
        ResponseParser.parse: ["self", "response", "shape"],
    }
    for function, expected in parameters.items():
        found = list(inspect.signature(function).parameters.values())
        assert [each.name for each in found[: len(expected)]] == expected, function
        assert all(each.default is not each.empty for each in found[len(expected) :]), function


QUEUE = {"QueueUrl": "http://sqs/1/q"}
CALLS: dict[str, dict[str, Any]] = {
    "BatchExecuteStatement": {"Statements": [{"Statement": "SELECT", "Parameters": [{"B": b"\x00\xff"}]}]},
    "BatchGetItem": {"RequestItems": ASKED},
    "BatchWriteItem": {"RequestItems": {"t": [{"PutRequest": {"Item": EVERY_TYPE}}]}},
    "Query": {"TableName": "t", "ExpressionAttributeValues": {":pk": KEY["PK"]}, "Limit": 5},
    "Scan": {"TableName": "t", "ExclusiveStartKey": KEY, "ConsistentRead": True},
    "GetRecords": {"ShardIterator": "i", "Limit": 1000},
    "ChangeMessageVisibilityBatch": {**QUEUE, "Entries": [{"Id": "0", "VisibilityTimeout": 0}]},
    "DeleteMessageBatch": {**QUEUE, "Entries": [{"Id": "0", "ReceiptHandle": "r"}]},
    "ReceiveMessage": {**QUEUE, "WaitTimeSeconds": 0, "MessageAttributeNames": ["All"]},
    "SendMessageBatch": {**QUEUE, "Entries": [{"Id": "0", "MessageBody": "ż\ufffe"}]},
}


@pytest.mark.parametrize(
    ("service", "operation"), [(service, name) for service, names in _DIRECT.items() for name in names]
)
def test_it_sends_what_boto3_sends(
    server: Scripted, monkeypatch: pytest.MonkeyPatch, service: str, operation: str
) -> None:
    # A role's, which carry a token.
    for name, value in (
        ("ACCESS_KEY_ID", "test"),
        ("SECRET_ACCESS_KEY", "s"),
        ("SESSION_TOKEN", "temporary"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    server.answers = [answer(document={"Responses": {}, "UnprocessedItems": {}, "Count": 0, "Records": []})]
    asking = client(server.url, service, access_key_id=None, secret_access_key=None)
    noted: list[str] = []
    asking.meta.events.register("before-parameter-build", lambda model, **_: noted.append(model.name))
    asking.meta.events.register("after-call", lambda parsed, **_: noted.append(sorted(parsed)[0]))
    for made in (asking, through_boto3(asking)):
        getattr(made, xform_name(operation))(**CALLS[operation])
    assert noted[:2] == noted[2:], "hooks"
    ours, theirs = server.asked
    assert ours.path == theirs.path and json.loads(ours.body) == json.loads(theirs.body)
    same = ("x-amz-target", "x-amzn-query-mode", "content-type", "user-agent", "x-amz-security-token", "host")
    assert {name: ours.headers.get(name) for name in same} == {
        name: theirs.headers.get(name) for name in same
    }
    scope, signed, _ = ours.headers["authorization"].split(", ")
    their_scope, their_signed, _ = theirs.headers["authorization"].split(", ")
    assert scope == their_scope and "test/" in scope and "/aws4_request" in scope
    # boto3 tells besides which attempt it is.
    assert set(their_signed.split(";")) - set(signed.split(";")) <= {
        "amz-sdk-invocation-id",
        "amz-sdk-request",
    }
    assert "x-amz-security-token" in signed


def test_what_it_sends_is_what_it_has_signed(server: Scripted) -> None:
    client(server.url).batch_get_item(RequestItems=ASKED)
    (asked,) = server.asked
    signed = asked.headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    again = AWSRequest(
        method="POST",
        url=server.url,
        headers={name: asked.headers[name] for name in signed if name not in ("host", "x-amz-date")},
        data=asked.body,
    )
    again.context["timestamp"] = asked.headers["x-amz-date"]
    auth = SigV4Auth(Credentials("test", "test"), "dynamodb", "us-east-1")
    again.headers["X-Amz-Date"] = asked.headers["x-amz-date"]
    signature = auth.signature(auth.string_to_sign(again, auth.canonical_request(again)), again)
    assert asked.headers["authorization"].endswith(f"Signature={signature}")


def test_credentials_that_were_renewed_sign_the_next_call(server: Scripted) -> None:
    asking = client(server.url)
    asking.batch_get_item(RequestItems=ASKED)
    asking._request_signer._credentials.access_key = "renewed"
    asking.batch_get_item(RequestItems=ASKED)
    before, after = (asked.headers["authorization"] for asked in server.asked)
    assert "Credential=test/" in before and "Credential=renewed/" in after


def test_the_proxy_of_the_environment_is_asked(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    client("http://dynamodb.example.com").batch_get_item(RequestItems=ASKED)
    assert [asked.path for asked in server.asked] == ["http://dynamodb.example.com/"]


def test_it_writes_what_boto3_writes(runtime: Runtime) -> None:
    name, read = runtime.names.demand_table, []
    for client_ in (through_boto3(runtime.aws.client("dynamodb")), runtime.dynamodb):
        put = {name: [{"PutRequest": {"Item": EVERY_TYPE}}]}
        assert client_.batch_write_item(RequestItems=put)["UnprocessedItems"] == {}
        read.append(runtime.dynamodb.get_item(TableName=name, Key=KEY)["Item"])
        client_.batch_write_item(RequestItems={name: [{"DeleteRequest": {"Key": KEY}}]})
        assert "Item" not in runtime.dynamodb.get_item(TableName=name, Key=KEY)
    assert read[0] == read[1] == EVERY_TYPE


@pytest.mark.parametrize(
    ("service", "code", "ask"),
    [
        (
            "dynamodb",
            "ResourceNotFoundException",
            lambda client: client.batch_get_item(RequestItems={"nowhere": {"Keys": [KEY]}}),
        ),
        (
            "sqs",
            "AWS.SimpleQueueService.NonExistentQueue",
            lambda client: client.receive_message(QueueUrl="http://sqs/000000000000/nowhere"),
        ),
    ],
)
def test_it_raises_what_boto3_raises(
    runtime: Runtime, service: str, code: str, ask: Callable[[Any], object]
) -> None:
    errors = []
    for asking in (through_boto3(runtime.aws.client(service)), runtime.aws.client(service)):
        with pytest.raises(ClientError) as raised:
            ask(asking)
        errors.append((str(raised.value), raised.value.response["ResponseMetadata"]["HTTPStatusCode"]))
    assert errors[0] == errors[1] and code in errors[0][0]


@pytest.mark.parametrize(
    ("status", "body", "throttled"),
    [
        (400, b'{"__type": "x#ProvisionedThroughputExceededException", "message": "slow"}', True),
        (500, b'{"__type": "x#InternalServerError"}', False),
        (503, b"<html>busy</html>", False),
        (503, b"[]", False),
        (502, b"<p>\xfc</p>", False),
        (200, b"<html>who asks?</html>", False),
        (200, b'["no", "object"]', False),
        (200, b'{"another": "server"}', False),
        (203, b"<html>transformed</html>", False),
        (204, b"", False),
    ],
)
def test_a_busy_broken_or_wrong_server_is_transient(
    server: Scripted, status: int, body: bytes, throttled: bool
) -> None:
    server.answers = [answer(status, body)]
    failure = meaning(client(server.url))
    assert isinstance(failure, TransientFailure) and failure.throttled is throttled


def test_a_write_that_another_server_answered_was_not_made(server: Scripted) -> None:
    server.answers = [answer(200, b'{"Responses": {}}')]
    with pytest.raises(UnreadableAnswer):
        client(server.url).batch_write_item(RequestItems={"t": []})


def test_a_damaged_response_is_refused(server: Scripted) -> None:
    body = b'{"Responses": {"table": []}}'
    calls = client(server.url)
    server.answers = [answer(200, body, x_amz_crc32=str(zlib.crc32(body)))]
    assert calls.batch_get_item(RequestItems=ASKED)["Responses"] == {"table": []}
    server.answers = [answer(200, body, x_amz_crc32=str(zlib.crc32(body) ^ 1))]
    failure = meaning(calls)
    assert isinstance(failure, TransientFailure) and failure.error == "ChecksumError"


@pytest.mark.parametrize("pieces", [[], [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"]])
def test_a_silent_server_costs_no_more_than_the_clients_time_out(
    server: Scripted, pieces: list[bytes]
) -> None:
    server.answers = [pieces]
    failure = meaning(client(server.url))
    assert isinstance(failure, TransientFailure) and "Timeout" in failure.error


def test_a_missing_or_closing_server_is_transient() -> None:
    failure = meaning(client(dead_address()))
    assert isinstance(failure, TransientFailure) and failure.error == "EndpointConnectionError"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        calls = client(f"http://127.0.0.1:{listener.getsockname()[1]}")
        listener.close()
        assert isinstance(meaning(calls), TransientFailure)


def test_a_connection_that_the_server_has_closed_is_opened_again(server: Scripted) -> None:
    calls = client(server.url)
    calls.batch_get_item(RequestItems=ASKED)
    server.close_connections()
    assert calls.batch_get_item(RequestItems=ASKED)["Responses"] == {}


def test_without_credentials_no_request_is_sent(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    failure = meaning(client(server.url, access_key_id=None, secret_access_key=None))
    assert isinstance(failure, UsageError) and "no AWS credentials" in str(failure)
    assert server.asked == []


def test_a_certificate_is_checked_against_the_bundle_that_botocore_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, tls = self_signed(tmp_path)
    with closing_server(Scripted(tls)) as server:
        server.answers = [answer(document={"Responses": {}})]
        failure = meaning(client(server.url))
        assert isinstance(failure, TransientFailure) and failure.error == "SSLError" and server.asked == []
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        assert client(server.url).batch_get_item(RequestItems=ASKED)["Responses"] == {}
