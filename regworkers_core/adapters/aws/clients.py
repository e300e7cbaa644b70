"""boto3 clients with time-outs and a pool, and what botocore's exceptions mean."""

from __future__ import annotations

from functools import cache
from typing import Any

import boto3
import botocore.session
import orjson
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from botocore.loaders import Loader, create_loader

from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Classify
from regworkers_core.settings import AwsSettings

_ACCESS_CODES = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "UnrecognizedClientException",
    }
)
_THROTTLED_CODES = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "Throttling",
        "RequestLimitExceeded",
        "LimitExceededException",
        "RequestThrottled",
        "OverLimit",
        "SlowDown",
    }
)
_TRANSIENT_CODES = _THROTTLED_CODES | {
    "InternalServerError",
    "InternalFailure",
    "ServiceUnavailable",
    "RequestTimeout",
    "TransactionInProgressException",
}
# Answers that carry many items. In the JSON protocol of DynamoDB and SQS they arrive as botocore would hand them out
# (but for binary values and times, which their readers take in both forms or not at all), so that walking each by its
# model, which is half of a drain's CPU, buys nothing.
_LARGE_ANSWERS = (
    "dynamodb.BatchGetItem",
    "dynamodb.BatchExecuteStatement",
    "dynamodb.Query",
    "dynamodb.Scan",
    "dynamodb-streams.GetRecords",
    "sqs.ReceiveMessage",
)


class AwsClients:
    """One session; each client has its own pool and is safe to share between threads."""

    def __init__(self, settings: AwsSettings) -> None:
        self._settings = settings
        core = botocore.session.get_session()
        self._session = boto3.Session(
            botocore_session=core,
            region_name=settings.region,
            aws_access_key_id=_revealed(settings.access_key_id),
            aws_secret_access_key=_revealed(settings.secret_access_key),
        )
        core.register_component("data_loader", _descriptions(core.get_config_variable("data_path")))

    def client(self, service: str, *, read_timeout_seconds: float | None = None) -> Any:
        """A client of `service` without botocore's own retries: only `Dependency` retries."""
        settings = self._settings
        config = Config(
            connect_timeout=settings.connect_timeout_seconds,
            read_timeout=read_timeout_seconds or settings.read_timeout_seconds,
            max_pool_connections=settings.max_connections,
            retries={"total_max_attempts": 1},
            tcp_keepalive=True,
            # The adapters are the only callers, and the service checks what it is sent: as costly as the rest
            # of making a request.
            parameter_validation=False,
            # Otherwise made up anew, from twenty parts, for every request.
            user_agent="regworkers",
            # An emulator has no host name for each bucket.
            s3={"addressing_style": "path"} if settings.endpoint_url else None,
        )
        client = self._session.client(service, endpoint_url=settings.endpoint_url, config=config)
        for operation in _LARGE_ANSWERS:
            client.meta.events.register(f"before-parse.{operation}", _parse_large_answer)
        return client


@cache
def _descriptions(data_path: str | None) -> Loader:
    """What botocore knows of the services. Reading it is six parts in seven of making a session's clients, and every
    tick of a daemon makes a session; it is never changed after.
    """
    return create_loader(data_path)


def _parse_large_answer(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any
) -> None:
    """botocore's hook before it parses: what is put into the customized answer is the answer."""
    if response_dict["status_code"] != 200:
        return
    try:
        customized_response_dict.update(orjson.loads(response_dict["body"]))
    except (orjson.JSONDecodeError, TypeError, ValueError):
        # Left to botocore, which reads some things that orjson refuses and knows what to raise.
        return
    response_dict["body"] = b""


def _revealed(secret: Any) -> str | None:
    return secret.get_secret_value() if secret else None


def error_code(error: BaseException | None) -> str:
    """The service's error code of a ClientError, else an empty string."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def classify_aws(dependency: str) -> Classify:
    """Connection errors, time-outs, throttling and 5xx are transient; missing credentials and
    refused access are the operator's; everything else comes back as it is, for the caller to interpret.
    """

    def classify(error: Exception) -> Exception:
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return UsageError(
                "no AWS credentials: set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        if isinstance(error, ClientError):
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            code = error_code(error)
            if code in _ACCESS_CODES:
                return UsageError(
                    f"AWS refuses {error.operation_name} ({code}): check the role and its policy"
                )
            if code in _TRANSIENT_CODES or status >= 500:
                return TransientFailure(dependency, code, throttled=code in _THROTTLED_CODES)
        elif isinstance(error, BotoCoreError) and not isinstance(error, ParamValidationError):
            return TransientFailure(dependency, type(error).__name__)
        return error

    return classify
