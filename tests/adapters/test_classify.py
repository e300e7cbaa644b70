"""What each driver's exceptions mean: one table a driver."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import redis
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
)
from botocore.exceptions import ConnectionClosedError as AwsConnectionClosed
from confluent_kafka import KafkaError, KafkaException
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    DuplicateKeyError,
    ExecutionTimeout,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
    WTimeoutError,
)

from regworkers_core.adapters.aws.answers import AwsRefusal
from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.adapters.aws.objects import classify_objects
from regworkers_core.adapters.campaign_cache import classify_redis
from regworkers_core.adapters.kafka.admin import classify_kafka
from regworkers_core.adapters.mongo.client import classify_mongo
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Classify
from tests.adapters.fakes import client_error

URL = "http://127.0.0.1:1/"


def retryable(error: PyMongoError) -> PyMongoError:
    error._add_error_label("RetryableWriteError")
    return error


TRANSIENT: dict[str, tuple[Classify, list[Exception]]] = {
    "dynamodb": (
        classify_aws("dynamodb"),
        [
            EndpointConnectionError(endpoint_url=URL),
            ConnectTimeoutError(endpoint_url=URL),
            ReadTimeoutError(endpoint_url=URL),
            AwsConnectionClosed(endpoint_url=URL),
            client_error("ProvisionedThroughputExceededException"),
            client_error("ThrottlingException"),
            client_error("RequestThrottled"),
            client_error("RequestLimitExceeded"),
            client_error("LimitExceededException"),
            client_error("OverLimit", 403),
            client_error("InternalServerError", 500),
            client_error("SomethingNew", 503),
            client_error("RequestTimeout"),
        ],
    ),
    "mongo": (
        classify_mongo,
        [
            AutoReconnect("gone"),
            NetworkTimeout("slow"),
            NotPrimaryError("stepped down"),
            ServerSelectionTimeoutError("none"),
            WaitQueueTimeoutError("pool"),
            ExecutionTimeout("maxTimeMS", 50),
            WTimeoutError("majority", 64),
            WriteConcernError("majority", 100),
            *(BulkWriteError({"writeErrors": [{"code": 11000}, {"code": code}]}) for code in (112, 8, 10107)),
            BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64}]}),
            *(OperationFailure("interrupted", code) for code in (91, 189, 10107, 11600, 11602, 13435)),
            retryable(OperationFailure("an election", 1)),
            retryable(PyMongoError("an election")),
        ],
    ),
    "kafka": (
        classify_kafka,
        [
            KafkaException(KafkaError(KafkaError._TRANSPORT)),
            KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN)),
            KafkaException(KafkaError(KafkaError._TIMED_OUT)),
            KafkaException(KafkaError(KafkaError.REQUEST_TIMED_OUT, "slow", retriable=True)),
        ],
    ),
    "redis": (
        classify_redis,
        [
            redis.exceptions.ConnectionError("refused"),
            redis.exceptions.TimeoutError("slow"),
            redis.exceptions.BusyLoadingError("loading"),
            redis.exceptions.OutOfMemoryError("full"),
            redis.exceptions.ReadOnlyError("a replica now"),
            redis.exceptions.MasterDownError("link down"),
            redis.exceptions.ClusterDownError("CLUSTERDOWN"),
            redis.exceptions.TryAgainError("TRYAGAIN"),
            redis.exceptions.MaxConnectionsError("pool"),
            redis.exceptions.ResponseError("MISCONF cannot persist on disk"),
            redis.exceptions.ResponseError("NOREPLICAS not enough"),
            redis.exceptions.ResponseError("ERR something new"),
            redis.exceptions.ResponseError("WRONGTYPE"),
            redis.exceptions.InvalidResponse("not RESP"),
            redis.exceptions.SlotNotCoveredError("slot 7"),
            socket.gaierror(-2, "Name or service not known"),
        ],
    ),
}
OPERATORS: dict[str, tuple[Classify, list[Exception], str]] = {
    "aws": (
        classify_aws("sqs"),
        [NoCredentialsError(), PartialCredentialsError(provider="env", cred_var="secret")],
        "AWS_PROFILE",
    ),
    "mongo": (
        classify_mongo,
        [OperationFailure("auth", 18), OperationFailure("not allowed", 13)],
        "REGWORKERS_MONGO__URI",
    ),
    "kafka": (
        classify_kafka,
        [
            KafkaException(KafkaError(KafkaError._AUTHENTICATION)),
            KafkaException(KafkaError(KafkaError._SSL)),
        ],
        "kafka.options",
    ),
    "redis": (
        classify_redis,
        [
            redis.exceptions.AuthenticationError("no"),
            redis.exceptions.NoPermissionError("no"),
            redis.exceptions.MovedError("3999 127.0.0.1:6381"),
            redis.exceptions.ClusterCrossSlotError("keys of several slots"),
            redis.exceptions.ResponseError(
                "unknown command 'GET', with args beginning with: 'campaign:summer'"
            ),
        ],
        "REGWORKERS_REDIS__URL",
    ),
}
OPERATORS["kafka-rights"] = (
    classify_kafka,
    [
        KafkaException(KafkaError(code))
        for code in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
    ],
    "docs/analytics.md",
)
OPERATORS["s3"] = (
    classify_objects,
    [client_error("PermanentRedirect", 301), client_error("AuthorizationHeaderMalformed")],
    "aws.region",
)
AS_THEY_ARE: dict[str, tuple[Classify, list[Exception]]] = {
    "aws": (
        classify_aws("dynamodb"),
        [ParamValidationError(report="a defect"), ValueError("a defect")],
    ),
    "mongo": (
        classify_mongo,
        [
            BulkWriteError({"writeErrors": [{"index": 0, "code": 11000}]}),
            DuplicateKeyError("dup", 11000),
            OperationFailure("bad value", 2),
            ValueError("a defect"),
        ],
    ),
    "kafka": (
        classify_kafka,
        [
            KafkaException(KafkaError(KafkaError.TOPIC_ALREADY_EXISTS)),
            KafkaException("no KafkaError inside"),
            ValueError("a defect"),
        ],
    ),
    "redis": (classify_redis, [UsageError("of another environment")]),
}


def cases(table: dict[str, Any]) -> list[Any]:
    return [
        pytest.param(name, row[0], error, *row[2:], id=f"{name}-{number}-{type(error).__name__}")
        for name, row in table.items()
        for number, error in enumerate(row[1])
    ]


@pytest.mark.parametrize(("name", "classify", "error"), cases(TRANSIENT))
def test_a_dependency_that_could_not_answer_is_transient_and_named(
    name: str, classify: Classify, error: Exception
) -> None:
    meaning = classify(error)
    assert isinstance(meaning, TransientFailure) and meaning.dependency == name
    assert meaning.error and URL not in str(meaning)


@pytest.mark.parametrize(("name", "classify", "error", "way_out"), cases(OPERATORS))
def test_what_only_the_operator_can_fix_says_where(
    name: str, classify: Classify, error: Exception, way_out: str
) -> None:
    meaning = classify(error)
    assert isinstance(meaning, UsageError) and way_out in str(meaning)


@pytest.mark.parametrize(("name", "classify", "error"), cases(AS_THEY_ARE))
def test_an_error_about_the_item_is_returned_unchanged(
    name: str, classify: Classify, error: Exception
) -> None:
    assert classify(error) is error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (client_error("ConditionalCheckFailedException"), "ConditionalCheckFailedException"),
        (client_error("ResourceNotFoundException"), "ResourceNotFoundException"),
        (client_error("ValidationException"), "ValidationException"),
        (ClientError({}, "Call"), ""),
    ],
)
def test_a_refusal_about_the_item_keeps_its_code_for_the_caller(error: ClientError, code: str) -> None:
    meaning = classify_aws("dynamodb")(error)
    assert isinstance(meaning, AwsRefusal)
    assert (meaning.code, meaning.operation_name) == (code, "Call")
