"""boto3 clients with time-outs and a pool, and what botocore's exceptions mean."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

import boto3
import botocore.session
from botocore import exceptions as aws
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader, create_loader

from regworkers_core.adapters.aws.direct_calls import (
    FIRST_REFUSAL,
    DirectCalls,
    UnreadableAnswer,
    json_object,
)
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine import scheduling
from regworkers_core.engine.dependency import Classify
from regworkers_core.settings import AwsSettings


def refuse_other_servers(client: Any) -> None:
    """Let a boto3 client refuse responses that are no object, if its protocol is JSON; of S3, refuse what is a page."""
    model = client.meta.service_model
    if model.resolved_protocol == "json":
        client.meta.events.register("before-parse", _refuse_others)
    elif model.service_name == "s3":
        client.meta.events.register("before-parse", _refuse_pages)


def _refuse_others(response_dict: dict[str, Any], operation_model: Any, **_: Any) -> None:
    """botocore's hook before it parses."""
    if response_dict["status_code"] >= FIRST_REFUSAL or operation_model.has_streaming_output:
        return
    if response_dict["body"] or operation_model.output_shape is not None:
        json_object(response_dict["body"])


def _refuse_pages(response_dict: dict[str, Any], **_: Any) -> None:
    """botocore takes a page for an empty listing, and for the answer to a write. An object that is a page has a tag."""
    status, headers = response_dict["status_code"], response_dict["headers"]
    # Some stacks call no content HTML.
    empty = status == 204 or headers.get("content-length") == "0"
    is_page = "html" in headers.get("content-type", "") and "etag" not in headers
    if status < FIRST_REFUSAL and is_page and not empty:
        raise UnreadableAnswer


# botocore's own list for its retries (a test compares), and SQS's code for too many messages in flight.
_THROTTLED_CODES = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "OverLimit",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        # Of a statement in a batch.
        "ProvisionedThroughputExceeded",
        "ThrottlingError",
    }
)
_TRANSIENT_CODES = _THROTTLED_CODES | {
    "InternalServerError",
    "InternalFailure",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "TransactionInProgressException",
    # Of a part of a batch.
    "InternalError",
    "TransactionConflict",
}
_DENIED_CODES = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_EXPIRED_CODES = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_UNKNOWN_KEY_CODES = frozenset(
    {
        "AuthFailure",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
    }
)
_SIGNATURE_CODES = frozenset({"InvalidSignatureException", "SignatureDoesNotMatch"})
_CLOCK_CODES = frozenset({"RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"})
# Of Secrets Manager, whose KMS errors do not say KMS.
_KMS_CODES = frozenset({"DecryptionFailure", "EncryptionFailure"})
# A signature is refused when it is five minutes off (on S3 fifteen).
_CLOCK_SECONDS = 240.0
# What the settings of AWS itself (environment, files in ~/.aws) can have wrong.
_UNUSABLE = (
    aws.ConfigNotFound,
    aws.ConfigParseError,
    aws.EndpointProviderError,
    aws.InvalidConfigError,
    aws.InvalidDefaultsMode,
    aws.InvalidEndpointConfigurationError,
    aws.InvalidIMDSEndpointError,
    aws.InvalidIMDSEndpointModeError,
    aws.InvalidProxiesConfigError,
    aws.InvalidRegionError,
    aws.InvalidRetryConfigurationError,
    aws.InvalidSTSRegionalEndpointsConfigError,
    aws.MissingDependencyException,
    aws.NoRegionError,
    aws.UnknownCredentialError,
    aws.UnknownEndpointError,
    aws.UnknownRegionError,
)


class AwsClients:
    """One session; each client has its own pool and is safe to share between threads."""

    def __init__(self, settings: AwsSettings) -> None:
        self._settings = settings
        core = botocore.session.get_session()
        try:
            self._session = boto3.Session(
                botocore_session=core,
                region_name=settings.region,
                aws_access_key_id=_revealed(settings.access_key_id),
                aws_secret_access_key=_revealed(settings.secret_access_key),
                aws_session_token=_revealed(settings.session_token),
            )
            core.register_component("data_loader", _descriptions(core.get_config_variable("data_path")))
        except BotoCoreError as error:
            raise classify_aws("aws")(error) from None

    def client(self, service: str, *, read_timeout_seconds: float | None = None) -> Any:
        """A client of `service` without botocore's own retries: only `Dependency` retries. Raises UsageError when AWS's
        own settings are not usable, TransientFailure when the place of the credentials does not answer.
        """
        settings = self._settings
        endpoint = settings.endpoint_of(service)
        config = Config(
            connect_timeout=settings.connect_timeout_seconds,
            read_timeout=read_timeout_seconds or settings.read_timeout_seconds,
            max_pool_connections=settings.max_connections,
            retries={"total_max_attempts": 1},
            tcp_keepalive=True,
            # The adapters are the only callers, and the service checks what it is sent: as costly as the rest
            # of making a request.
            parameter_validation=False,
            # Otherwise built for every request, from twenty parts.
            user_agent="regworkers",
            # An emulator has no host name for each bucket.
            s3={"addressing_style": "path"} if endpoint else None,
        )
        try:
            client = self._session.client(service, endpoint_url=endpoint, config=config)
        except BotoCoreError as error:
            raise classify_aws(service)(error) from None
        refuse_other_servers(client)
        DirectCalls.install(client)
        return client

    def credentials(self) -> Any:
        """This process's credentials, for what signs by itself. Raises as `client` does."""
        try:
            found = self._session.get_credentials()
            if found is None:
                raise aws.NoCredentialsError
            # Those of a role are fetched when they are first read.
            found.get_frozen_credentials()
        except BotoCoreError as error:
            raise classify_aws("aws")(error) from None
        return found


@cache
def _descriptions(data_path: str | None) -> Loader:
    """botocore's descriptions of the services, which never change. Reading them takes 85 % of the time to make a
    session's clients, and every tick of a daemon makes a session.
    """
    return create_loader(data_path)


def _revealed(secret: Any) -> str | None:
    return secret.get_secret_value() if secret else None


def all_pages(ask: Callable[..., Any], rows: str, token: tuple[str, str], **arguments: Any) -> list[Any]:
    """All rows of a paged call. `token` has the names of the next page's token in the answer and in the request."""
    found: list[Any] = []
    while True:
        answer = ask(**arguments)
        found.extend(answer.get(rows) or ())
        if not answer.get(token[0]):
            return found
        arguments[token[1]] = answer[token[0]]


def error_code(error: BaseException | None) -> str:
    """The service's error code of a ClientError, else an empty string."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def classify_aws(dependency: str) -> Classify:
    """Connection errors, time-outs, throttling (also of KMS) and 5xx are transient. Credentials, clocks, profiles and
    refused access are the operator's, each with its own text. Any other error is returned for the caller to interpret.
    """

    def classify(error: Exception) -> Exception:
        if isinstance(error, ClientError):
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            code = error_code(error)
            said = str(error.response.get("Error", {}).get("Message", ""))
            meaning = meaning_of_code(
                dependency, code, error.operation_name, said=said, clock_seconds=_ahead_seconds(error)
            )
            if meaning is None and status >= 500:
                return TransientFailure(dependency, code or f"status {status}")
            return meaning or error
        if isinstance(error, BotoCoreError) and not isinstance(error, aws.ParamValidationError):
            trouble = _trouble_with_credentials(error)
            return UsageError(trouble) if trouble else TransientFailure(dependency, _named(error))
        return error

    return classify


def meaning_of_code(
    dependency: str, code: str, operation: str, *, said: str = "", clock_seconds: float | None = None
) -> TransientFailure | UsageError | None:
    """The meaning of an error code of a call or of one part of a batch, if it is about access, credentials, keys or
    load; None for any other code.

    `said` is AWS's text, used for decisions and never shown. `clock_seconds` is how far this machine's clock was ahead
    of AWS's (negative: behind), None if the response had no date.
    """
    if code.upper().startswith("KMS") or code in _KMS_CODES:
        return _of_kms(dependency, code, operation)
    if code in _TRANSIENT_CODES:
        return TransientFailure(dependency, code, throttled=code in _THROTTLED_CODES)
    if code in _DENIED_CODES:
        # The service's text names KMS if the key is the cause.
        if "kms:" in said.lower():
            return _of_kms(dependency, code, operation)
        return UsageError(f"AWS refuses {operation} ({code}): check the role and its policy")
    if code in _EXPIRED_CODES:
        return UsageError(
            f"the AWS credentials have expired ({code}): get new ones ({_login('sso login')}, or new keys with their "
            "session token); temporary ones last for hours only"
        )
    if code in _CLOCK_CODES or (code in _SIGNATURE_CODES and _is_clock(said, clock_seconds)):
        return UsageError(f"AWS refuses {operation} ({code}): {_clock(clock_seconds)}")
    if code in _SIGNATURE_CODES:
        reason = (
            "the secret access key or the clock of this machine is wrong"
            if clock_seconds is None
            else "the secret access key is wrong (the clock is right)"
        )
        return UsageError(f"AWS refuses the signature of {operation} ({code}): {reason}")
    if code in _UNKNOWN_KEY_CODES:
        return UsageError(
            f"AWS does not know these credentials ({code}): check {_profile()} or REGWORKERS_AWS__ACCESS_KEY_ID, "
            "REGWORKERS_AWS__SECRET_ACCESS_KEY and, for temporary keys, REGWORKERS_AWS__SESSION_TOKEN"
        )
    return None


def _of_kms(dependency: str, code: str, operation: str) -> TransientFailure | UsageError:
    """`KMS.ThrottlingException`, `KmsThrottled`, `KMSAccessDeniedException`, ...: each service spells them its way."""
    lower = code.lower()
    if "throttl" in lower or "limitexceeded" in lower:
        return TransientFailure(dependency, code, throttled=True)
    if "internal" in lower or "timeout" in lower or "unavailable" in lower:
        return TransientFailure(dependency, code)
    return UsageError(
        f"KMS refuses its key to {operation} ({code}): check that the key is enabled, its policy, and the role's "
        "kms:Decrypt and kms:GenerateDataKey"
    )


def _trouble_with_credentials(error: BotoCoreError) -> str:
    """What the operator has to do; empty for transient errors."""
    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError):
        return (
            "no AWS credentials: set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            " (where a role of the machine brings them: its metadata service did not answer)"
        )
    if isinstance(error, aws.ProfileNotFound):
        return (
            f"there is no AWS profile {error.kwargs.get('profile')!r}, which AWS_PROFILE names: "
            "`aws configure list-profiles` lists the existing ones"
        )
    if isinstance(error, aws.SSOError | aws.TokenRetrievalError | aws.NoAuthTokenError):
        return f"the SSO login expired: {_login('sso login')}"
    if isinstance(error, aws.LoginInsufficientPermissions):
        return "the AWS login may not make credentials: the user needs signin:CreateOAuth2Token"
    if isinstance(error, aws.LoginError):
        return f"the AWS login expired: {_login('login')}"
    if isinstance(error, aws.RefreshWithMFAUnsupportedError):
        return f"{_profile()} asks for an MFA code, which only a terminal can give: log in there and set the keys"
    if isinstance(error, aws.CredentialRetrievalError) and error.kwargs.get("provider") == "custom-process":
        return f"the credential_process of {_profile()} failed: run it by hand to see why"
    if isinstance(error, _UNUSABLE):
        return f"the AWS settings of this machine are not usable ({type(error).__name__}): check ~/.aws and AWS_*"
    return ""


def _named(error: BotoCoreError) -> str:
    """The type of an error, and for credentials the provider."""
    provider = error.kwargs.get("provider") if isinstance(error, aws.CredentialRetrievalError) else None
    return f"{type(error).__name__} of {provider}" if provider else type(error).__name__


def _profile() -> str:
    name = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
    return f"AWS_PROFILE ({name})" if name else "AWS_PROFILE"


def _login(command: str) -> str:
    name = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
    return f"aws {command} --profile {name}" if name else f"aws {command}"


def _ahead_seconds(error: ClientError) -> float | None:
    """How far this machine's clock is ahead of the service's; None if the response has no date."""
    headers: Mapping[str, str] = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        at = parsedate_to_datetime(headers.get("date", ""))
    except ValueError:
        return None
    return scheduling.now() - (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _is_clock(said: str, ahead_seconds: float | None) -> bool:
    if ahead_seconds is not None:
        return abs(ahead_seconds) > _CLOCK_SECONDS
    return "expired" in said or "not yet current" in said


def _clock(ahead_seconds: float | None) -> str:
    if ahead_seconds is None:
        return "set the clock of this machine, it differs from that of AWS by minutes"
    minutes, side = abs(ahead_seconds) / 60, "ahead of" if ahead_seconds > 0 else "behind"
    return f"set the clock of this machine, it is {minutes:.0f} min {side} that of AWS"
