"""boto3 clients with time-outs and a pool, and what botocore's exceptions mean."""

from __future__ import annotations

from functools import cache
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from botocore.loaders import Loader, create_loader

from regworkers_core.adapters.aws.answers import read_answers_here
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
        # Of a statement in a batch.
        "ProvisionedThroughputExceeded",
        "ThrottlingError",
    }
)
_TRANSIENT_CODES = _THROTTLED_CODES | {
    "InternalServerError",
    "InternalFailure",
    "ServiceUnavailable",
    "RequestTimeout",
    "TransactionInProgressException",
    # Of a part of a batch.
    "InternalError",
    "TransactionConflict",
}


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
        read_answers_here(client)
        return client


@cache
def _descriptions(data_path: str | None) -> Loader:
    """What botocore knows of the services. Reading it is six parts in seven of making a session's clients, and every
    tick of a daemon makes a session; it is never changed after.
    """
    return create_loader(data_path)


def _revealed(secret: Any) -> str | None:
    return secret.get_secret_value() if secret else None


def error_code(error: BaseException | None) -> str:
    """The service's error code of a ClientError, else an empty string."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def meaning_of_code(dependency: str, code: str, operation: str) -> TransientFailure | UsageError | None:
    """What an error code means, be it of a call or of one part of a batch; None where that is the caller's to say."""
    if code in _ACCESS_CODES:
        return UsageError(f"AWS refuses {operation} ({code}): check the role and its policy")
    if code in _TRANSIENT_CODES:
        return TransientFailure(dependency, code, throttled=code in _THROTTLED_CODES)
    return None


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
            known = meaning_of_code(dependency, code, error.operation_name)
            if known is None and status >= 500:
                return TransientFailure(dependency, code)
            return known or error
        if isinstance(error, BotoCoreError) and not isinstance(error, ParamValidationError):
            return TransientFailure(dependency, type(error).__name__)
        return error

    return classify
