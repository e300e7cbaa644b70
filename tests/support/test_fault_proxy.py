"""The fault proxy itself: each protocol is read, and a client sees each fault as it would of the real server."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import pytest
import redis
from botocore.exceptions import BotoCoreError, ClientError
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from pymongo.errors import AutoReconnect, OperationFailure

from regworkers_core.runtime import Runtime
from tests.adapters.http.servers import Scripted, answer
from tests.support.certificates import Authority
from tests.support.fault_proxy import Fault, FaultProxy, KafkaFields, Rule, fault_proxy, proxied, written
from tests.support.runtimes import ADDRESSES, address, new_runtime, redis_url, remove_namespace, test_settings
from tests.support.tls_proxy import server_context

SHORT: dict[str, Any] = {
    "aws": {"connect_timeout_seconds": 0.3, "read_timeout_seconds": 0.3},
    # Only a command that hangs takes this long; a connection may take its time on a loaded machine.
    "mongo": {"socket_timeout_seconds": 1.0, "server_selection_timeout_seconds": 20.0},
}


class Behind:
    """A runtime all of whose servers are behind proxies, by name."""

    def __init__(self, plain: Runtime, around: ExitStack) -> None:
        prefix = plain.names.prefix
        addresses = {name: address(name) for name in ADDRESSES}
        addresses["redis"] = redis_url(prefix, addresses["redis"])
        self.proxies = {name: around.enter_context(fault_proxy(name, at)) for name, at in addresses.items()}
        given = {name: proxied(at, self.proxies[name]) for name, at in addresses.items()}
        keys = {"endpoint_url": given["aws"], "access_key_id": "test", "secret_access_key": "test"}
        sections = {"aws": {**keys, **SHORT["aws"]}, "mongo": {"uri": given["mongo"], **SHORT["mongo"]}}
        self.runtime = Runtime(test_settings(prefix, given, **sections))
        self.plain = plain


@pytest.fixture(scope="module")
def made() -> Iterator[Behind]:
    runtime = new_runtime()
    with ExitStack() as around:
        behind = Behind(runtime, around)
        yield behind
        behind.runtime.mongo.close()
    remove_namespace(runtime)


@pytest.fixture
def behind(made: Behind) -> Iterator[Behind]:
    yield made
    for proxy in made.proxies.values():
        proxy.rules = ()


def list_tables(runtime: Runtime) -> Any:
    return runtime.dynamodb.describe_table(TableName=runtime.names.demand_table)


def list_streams(runtime: Runtime) -> Any:
    return runtime.aws.client("dynamodbstreams").list_streams(TableName=runtime.names.demand_table)


def find_queue(runtime: Runtime) -> Any:
    return runtime.sqs.get_queue_url(QueueName=runtime.names.replication_queue)


def put_object(runtime: Runtime) -> Any:
    return runtime.aws.client("s3").put_object(Bucket=runtime.names.bucket, Key="a/b", Body=b"text" * 1000)


def list_secrets(runtime: Runtime) -> Any:
    return runtime.aws.client("secretsmanager").list_secrets()


def put_metric(runtime: Runtime) -> Any:
    data = [{"MetricName": "n", "Value": 1.0}]
    return runtime.aws.client("cloudwatch").put_metric_data(Namespace="n", MetricData=data)


def list_groups(runtime: Runtime) -> Any:
    return runtime.aws.client("logs").describe_log_groups()


@pytest.mark.parametrize(
    ("service", "operation", "call", "throttled", "denied", "refused_keys"),
    [
        (
            "dynamodb",
            "DescribeTable",
            list_tables,
            "ProvisionedThroughputExceeded",
            "AccessDeniedException",
            "ExpiredToken",
        ),
        (
            "streams",
            "ListStreams",
            list_streams,
            "ThrottlingException",
            "AccessDeniedException",
            "UnrecognizedClient",
        ),
        ("sqs", "GetQueueUrl", find_queue, "RequestThrottled", "AccessDenied", "InvalidClientTokenId"),
        ("s3", "PUT /*/a/b", put_object, "SlowDown", "AccessDenied", "SignatureDoesNotMatch"),
        (
            "secretsmanager",
            "ListSecrets",
            list_secrets,
            "ThrottlingException",
            "AccessDeniedException",
            "InvalidSignature",
        ),
        ("monitoring", "PutMetricData", put_metric, "Throttling", "AccessDenied", "ExpiredToken"),
        (
            "logs",
            "DescribeLogGroups",
            list_groups,
            "ThrottlingException",
            "AccessDeniedException",
            "UnrecognizedClient",
        ),
    ],
)
def test_aws_is_read_by_service_and_operation_and_fails_with_the_codes_of_the_service(
    behind: Behind, service: str, operation: str, call: Any, throttled: str, denied: str, refused_keys: str
) -> None:
    proxy = behind.proxies["aws"]
    call(behind.runtime)
    codes = {Fault.THROTTLED: throttled, Fault.DENIED: denied, Fault.CREDENTIALS: refused_keys}
    for fault, code in {**codes, Fault.ERROR: "Intern"}.items():
        proxy.rules = [Rule(fault, service, operation)]
        with pytest.raises(ClientError) as failure:
            call(behind.runtime)
        assert failure.value.response["Error"]["Code"].startswith(code)
    proxy.rules = [Rule(Fault.ERROR, service, "another"), Rule(Fault.ERROR, "another", operation)]
    call(behind.runtime)


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.HANGING, Fault.GARBAGE])
def test_aws_that_does_not_answer_raises_and_is_well_after_the_rule(behind: Behind, fault: Fault) -> None:
    proxy = behind.proxies["aws"]
    proxy.rules = [Rule(fault)]
    with pytest.raises(BotoCoreError):
        behind.runtime.demand_table._client.batch_get_item(
            RequestItems={behind.runtime.names.demand_table: {"Keys": [{"PK": {"S": "a"}, "SK": {"S": "b"}}]}}
        )
    proxy.rules = [Rule(fault, times=0)]
    list_tables(behind.runtime)


def test_a_refused_server_refuses_connections_and_a_refused_operation_only_itself(behind: Behind) -> None:
    proxy = behind.proxies["aws"]
    proxy.rules = [Rule(Fault.REFUSED, "sqs")]
    list_tables(behind.runtime)
    with pytest.raises(BotoCoreError):
        find_queue(behind.runtime)
    proxy.rules = [Rule(Fault.REFUSED)]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port))


def test_of_a_cut_request_only_the_answer_is_lost(behind: Behind) -> None:
    proxy, queue = behind.proxies["aws"], behind.plain.queue(behind.plain.names.selection_queue)
    url = behind.plain.sqs.get_queue_url(QueueName=queue.name)["QueueUrl"]
    proxy.rules = [Rule(Fault.CUT, "sqs", "SendMessage", times=1)]
    with pytest.raises(BotoCoreError):
        behind.runtime.sqs.send_message(QueueUrl=url, MessageBody="{}")
    assert queue.depth().total == 1
    behind.runtime.sqs.send_message(QueueUrl=url, MessageBody="{}")
    assert queue.depth().total == 2
    assert proxy.seen["sqs", "SendMessage", "cut"] == 1


def test_mongodb_is_read_by_command(behind: Behind) -> None:
    proxy, collection = behind.proxies["mongo"], behind.runtime.database["things"]
    collection.insert_one({"_id": 1})
    proxy.rules = [Rule(Fault.DENIED, behind.runtime.database.name, "insert")]
    with pytest.raises(OperationFailure) as failure:
        collection.insert_one({"_id": 2})
    assert failure.value.code == 13
    proxy.rules = [Rule(Fault.CREDENTIALS)]
    proxy.cut_connections()
    with pytest.raises(OperationFailure, match="planted") as failure:
        collection.find_one({"_id": 1})
    assert failure.value.code == 18
    proxy.rules = ()
    assert collection.find_one({"_id": 1}) == {"_id": 1}
    proxy.rules = [Rule(Fault.CUT, operation="insert", times=1)]
    with pytest.raises(AutoReconnect):
        collection.insert_one({"_id": 3})
    assert collection.find_one({"_id": 3}) is not None
    proxy.rules = [Rule(Fault.HANGING, operation="find")]
    with pytest.raises(AutoReconnect):
        collection.find_one({"_id": 1})


def test_redis_is_read_by_command(behind: Behind) -> None:
    proxy, client = behind.proxies["redis"], behind.runtime.redis_client
    client.set("a", "1")
    proxy.rules = [Rule(Fault.DENIED, operation="SET")]
    with pytest.raises(redis.exceptions.NoPermissionError):
        client.set("a", "2")
    proxy.rules = [Rule(Fault.CREDENTIALS)]
    with pytest.raises(redis.AuthenticationError):
        client.set("a", "2")
    proxy.rules = ()
    assert client.get("a") in (b"1", "1")
    proxy.rules = [Rule(Fault.REFUSED)]
    with pytest.raises(redis.RedisError):
        client.get("a")


def test_kafka_answers_with_its_own_errors_and_shows_no_topic_that_is_denied(behind: Behind) -> None:
    proxy, topic = behind.proxies["kafka"], min(behind.plain.names.topics)
    client = AdminClient({"bootstrap.servers": f"127.0.0.1:{proxy.port}", "log_level": 0})

    def topics(name: str | None = None) -> dict[str, Any]:
        found: dict[str, Any] = client.list_topics(name, timeout=5).topics
        return found

    assert topics()[topic].error is None
    proxy.rules = [Rule(Fault.ERROR)]
    assert topics()[topic].error.code() == KafkaError.UNKNOWN
    proxy.rules = [Rule(Fault.THROTTLED, seconds=0.05)]
    assert topics()[topic].error is None
    proxy.rules = [Rule(Fault.DENIED)]
    assert topics() == {}
    assert topics(topic)[topic].error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    proxy.rules = [Rule(Fault.GARBAGE)]
    with pytest.raises(KafkaException):
        client.list_topics(timeout=0.5)


@pytest.mark.parametrize("number", [0, 127, 128, 401, 70_000])
def test_numbers_of_kafka_are_written_as_they_are_read(number: int) -> None:
    assert KafkaFields(written(number), 0).number() == number


def test_kafka_takes_a_certificate_until_it_refuses_it(behind: Behind, tmp_path: Path) -> None:
    authority, address_ = Authority(), address("kafka")
    with fault_proxy("kafka", address_, tls=server_context(authority, tmp_path)) as proxy:
        mine = authority.client()
        options = {
            "ssl.ca.pem": authority.pem,
            "ssl.certificate.pem": mine.certificate,
            "ssl.key.pem": mine.key,
        }
        client = AdminClient(
            {
                "bootstrap.servers": f"127.0.0.1:{proxy.port}",
                "security.protocol": "ssl",
                "log_level": 0,
                **options,
            }
        )
        assert client.list_topics(timeout=5).topics
        proxy.rules = [Rule(Fault.CREDENTIALS)]
        proxy.cut_connections()
        with pytest.raises(KafkaException):
            client.list_topics(timeout=0.5)
        assert proxy.seen["kafka", "handshake", "credentials"]
        proxy.rules = ()
        assert client.list_topics(timeout=5).topics


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.ERROR, "recovery mode"),
        (Fault.THROTTLED, "too many clients"),
        (Fault.DENIED, "permission denied"),
        (Fault.CREDENTIALS, "password authentication failed"),
        (Fault.GARBAGE, "received H"),
    ],
)
def test_a_connection_to_postgres_fails_in_its_own_words(fault: Fault, said: str) -> None:
    with fault_proxy("postgres", "/no-such-socket") as proxy:
        proxy.rules = [Rule(fault)]
        with pytest.raises(psycopg2.OperationalError, match=said):
            psycopg2.connect(host="127.0.0.1", port=proxy.port, user="dagster")
        assert proxy.seen["postgres", "connect", fault]


@pytest.fixture
def service() -> Iterator[FaultProxy]:
    server = Scripted()
    server.answers = [answer(200, b"ok")]
    with fault_proxy("http", server.url) as proxy:
        yield proxy
    server.stop()


def test_a_plain_service_is_read_by_path(service: FaultProxy) -> None:
    url = f"http://127.0.0.1:{service.port}"
    service.rules = [
        Rule(Fault.THROTTLED, "entry"),
        Rule(Fault.DENIED, operation="GET /user/*"),
        Rule(Fault.GARBAGE, "code"),
        Rule(Fault.CREDENTIALS, "login"),
        Rule(Fault.SLOW, "campaign", seconds=0.05),
    ]
    assert httpx.get(f"{url}/entry/1").status_code == 429
    assert httpx.get(f"{url}/user/1").status_code == 403
    assert httpx.get(f"{url}/login/1").status_code == 401
    assert "html" in httpx.get(f"{url}/code/1").text
    started = time.monotonic()
    assert httpx.get(f"{url}/campaign/1").text == "ok"
    assert time.monotonic() - started >= 0.05
    assert httpx.get(f"{url}/other").text == "ok"
