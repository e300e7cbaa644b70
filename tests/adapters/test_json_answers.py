"""Answers in JSON: large ones that botocore does not walk by its model have the same content, errors are as ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse, HeadersDict
from botocore.exceptions import ClientError

from regworkers_core.adapters.aws.clients import AwsClients, UnreadableAnswer, classify_aws
from regworkers_core.adapters.aws.objects import classify_objects
from regworkers_core.adapters.aws.tables import plain_item
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.runtime import Runtime
from regworkers_core.settings import AwsSettings
from tests.support.entries import key

QUEUE = "http://127.0.0.1:9/q"
KEY = {"PK": {"S": key("e1").pk}, "SK": {"S": key("e1").sk}}
EVERY_TYPE: dict[str, Any] = {
    **KEY,
    "text": {"S": "Łukasz \U0001f3ab"},
    "number": {"N": "-12.5"},
    "yes": {"BOOL": True},
    "nothing": {"NULL": True},
    "bytes": {"B": b"\x00\xff"},
    "list": {"L": [{"S": "a"}, {"N": "1"}, {"B": b"\x01"}]},
    "map": {"M": {"inner": {"L": [{"BOOL": False}]}, "empty": {"M": {}}}},
    "texts": {"SS": ["a", "b"]},
    "numbers": {"NS": ["1", "2"]},
    "blobs": {"BS": [b"\x01", b"\x02"]},
}


class Body:
    """What an AWSResponse reads its content from."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self) -> bytes:
        return self._content

    def stream(self) -> Iterator[bytes]:
        yield self._content


def answering(
    status: int, content: bytes, service: str = "dynamodb", headers: Mapping[str, str] | None = None
) -> Any:
    """A client whose service says just this."""
    client = AwsClients(
        AwsSettings(endpoint_url="http://127.0.0.1:9", access_key_id="test", secret_access_key="test")  # type: ignore[arg-type]
    ).client(service)
    client._endpoint.http_session.send = lambda request: AWSResponse(
        request.url, status, HeadersDict(headers or {}), Body(content)
    )
    return client


def test_every_type_of_attribute_reads_as_botocore_reads_it(runtime: Runtime) -> None:
    runtime.dynamodb.put_item(TableName=runtime.names.demand_table, Item=EVERY_TYPE)
    request = {runtime.names.demand_table: {"Keys": [KEY], "ConsistentRead": True}}
    bare = boto3.client(
        "dynamodb",
        endpoint_url=runtime.settings.aws.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    (ours,) = runtime.dynamodb.batch_get_item(RequestItems=request)["Responses"][runtime.names.demand_table]
    (theirs,) = bare.batch_get_item(RequestItems=request)["Responses"][runtime.names.demand_table]
    assert plain_item(ours) == plain_item(theirs)
    assert plain_item(ours)["bytes"] == b"\x00\xff"


def test_the_answer_keeps_its_metadata() -> None:
    answer = answering(200, b'{"Responses": {"t": []}}').batch_get_item(RequestItems={"t": {"Keys": [KEY]}})
    assert answer["Responses"] == {"t": []}
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_an_error_answer_is_still_an_error_with_its_code() -> None:
    client = answering(400, b'{"__type": "x#ProvisionedThroughputExceededException", "message": "slow"}')
    with pytest.raises(ClientError) as raised:
        client.batch_get_item(RequestItems={"t": {"Keys": [KEY]}})
    assert isinstance(classify_aws("dynamodb")(raised.value), TransientFailure)


def test_text_that_the_fast_parser_refuses_is_still_read() -> None:
    # A lone surrogate.
    content = b'{"Responses": {"t": [{"SK": {"S": "\\ud800"}}]}}'
    answer = answering(200, content).batch_get_item(RequestItems={"t": {"Keys": [KEY]}})
    assert answer["Responses"]["t"] == [{"SK": {"S": "\ud800"}}]


@pytest.mark.parametrize(
    ("status", "content"),
    [(200, b"<html>who asks?</html>"), (200, b'["no", "object"]'), (200, b""), (203, b"<html/>"), (204, b"")],
)
@pytest.mark.parametrize(
    ("service", "ask"),
    [
        ("dynamodb", lambda client: client.batch_get_item(RequestItems={"t": {"Keys": [KEY]}})),
        ("dynamodb", lambda client: client.put_item(TableName="t", Item=KEY)),
        ("dynamodbstreams", lambda client: client.get_records(ShardIterator="s")),
        ("sqs", lambda client: client.send_message_batch(QueueUrl=QUEUE, Entries=[])),
        ("sqs", lambda client: client.delete_message_batch(QueueUrl=QUEUE, Entries=[])),
        ("secretsmanager", lambda client: client.get_secret_value(SecretId="s")),
    ],
)
def test_a_response_of_another_server_is_a_failed_attempt(
    status: int, content: bytes, service: str, ask: Callable[[Any], object]
) -> None:
    with pytest.raises(UnreadableAnswer) as raised:
        ask(answering(status, content, service))
    assert isinstance(classify_aws(service)(raised.value), TransientFailure)


@pytest.mark.parametrize(
    ("service", "ask"),
    [
        ("dynamodb", lambda client: client.batch_get_item(RequestItems={"t": {"Keys": [KEY]}})),
        ("dynamodb", lambda client: client.batch_execute_statement(Statements=[])),
        ("dynamodb", lambda client: client.query(TableName="t")),
        ("dynamodb", lambda client: client.scan(TableName="t")),
        ("dynamodbstreams", lambda client: client.get_records(ShardIterator="s")),
    ],
)
def test_an_object_of_another_server_is_not_taken_for_an_empty_answer(
    service: str, ask: Callable[[Any], object]
) -> None:
    with pytest.raises(UnreadableAnswer):
        ask(answering(200, b'{"another": "server"}', service))


def test_an_empty_queue_may_answer_with_an_empty_object() -> None:
    assert "Messages" not in answering(200, b"{}", "sqs").receive_message(QueueUrl=QUEUE)


def test_an_operation_without_output_may_answer_nothing() -> None:
    client = answering(200, b"", "sqs")
    assert client.delete_message(QueueUrl=QUEUE, ReceiptHandle="r")["ResponseMetadata"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.put_object(Bucket="b", Key="k", Body=b"content"),
        lambda client: client.get_object(Bucket="b", Key="k"),
        lambda client: client.list_objects_v2(Bucket="b"),
        lambda client: client.head_bucket(Bucket="b"),
        lambda client: client.delete_object(Bucket="b", Key="k"),
    ],
)
def test_a_page_is_no_answer_of_s3(ask: Callable[[Any], object]) -> None:
    page = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(UnreadableAnswer) as raised:
        ask(answering(200, b"<html><body>Please log in</body></html>", "s3", page))
    assert isinstance(classify_objects(raised.value), TransientFailure)


def test_an_object_that_is_a_page_is_read() -> None:
    headers = {"Content-Type": "text/html", "ETag": '"tag"'}
    answer = answering(200, b"<html/>", "s3", headers).get_object(Bucket="b", Key="report.html")
    assert answer["ETag"] == '"tag"'
