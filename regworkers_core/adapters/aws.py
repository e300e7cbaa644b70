"""boto3 clients with time-outs and a pool, and what botocore's exceptions mean."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Classify
from regworkers_core.settings import AwsSettings

_TRANSIENT_CODES = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "Throttling",
        "RequestLimitExceeded",
        "LimitExceededException",
        "RequestThrottled",
        "OverLimit",
        "InternalServerError",
        "InternalFailure",
        "ServiceUnavailable",
        "RequestTimeout",
        "TransactionInProgressException",
        "SlowDown",
    }
)


class AwsClients:
    """One session; each client has its own pool and is safe to share between threads."""

    def __init__(self, settings: AwsSettings) -> None:
        self._settings = settings
        self._session = boto3.Session(
            region_name=settings.region,
            aws_access_key_id=_revealed(settings.access_key_id),
            aws_secret_access_key=_revealed(settings.secret_access_key),
        )

    def client(self, service: str, *, read_timeout_seconds: float | None = None) -> Any:
        """A client of `service` without botocore's own retries: only `Dependency` retries."""
        settings = self._settings
        config = Config(
            connect_timeout=settings.connect_timeout_seconds,
            read_timeout=read_timeout_seconds or settings.read_timeout_seconds,
            max_pool_connections=settings.max_connections,
            retries={"total_max_attempts": 1},
            tcp_keepalive=True,
        )
        return self._session.client(service, endpoint_url=settings.endpoint_url, config=config)


def _revealed(secret: Any) -> str | None:
    return secret.get_secret_value() if secret else None


def error_code(error: BaseException | None) -> str:
    """The service's error code of a ClientError, else an empty string."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def classify_aws(dependency: str) -> Classify:
    """Connection errors, time-outs, throttling and 5xx are transient; missing credentials are the
    operator's; everything else comes back as it is, for the caller to interpret.
    """

    def classify(error: Exception) -> Exception:
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return UsageError(
                "no AWS credentials: set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        if isinstance(error, ClientError):
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = error_code(error)
            return TransientFailure(dependency, code) if code in _TRANSIENT_CODES or status >= 500 else error
        if isinstance(error, BotoCoreError) and not isinstance(error, ParamValidationError):
            return TransientFailure(dependency, type(error).__name__)
        return error

    return classify
