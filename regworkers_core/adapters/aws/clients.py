"""boto3 clients with time-outs and a pool, and what botocore's exceptions mean."""

from __future__ import annotations

from collections.abc import Mapping
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

from fairdraw import scheduling
from regworkers_core.adapters.aws.answers import AwsRefusal, error_code, login, meaning_of_code, profile
from regworkers_core.adapters.aws.direct_calls import (
    FIRST_REFUSAL,
    DirectCalls,
    UnreadableAnswer,
    json_object,
)
from regworkers_core.domain.reasons import TransientFailure, UsageError
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


def classify_aws(dependency: str) -> Classify:
    """Connection errors, time-outs, throttling (also of KMS) and 5xx are transient. Credentials, clocks, profiles and
    refused access are the operator's, each with its own text. Any other refusal is an AwsRefusal.
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
            return meaning or AwsRefusal(code, error.operation_name)
        if isinstance(error, BotoCoreError) and not isinstance(error, aws.ParamValidationError):
            trouble = _trouble_with_credentials(error)
            return UsageError(trouble) if trouble else TransientFailure(dependency, _named(error))
        return error

    return classify


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
        return f"the SSO login expired: {login('sso login')}"
    if isinstance(error, aws.LoginInsufficientPermissions):
        return "the AWS login may not make credentials: the user needs signin:CreateOAuth2Token"
    if isinstance(error, aws.LoginError):
        return f"the AWS login expired: {login('login')}"
    if isinstance(error, aws.RefreshWithMFAUnsupportedError):
        return (
            f"{profile()} asks for an MFA code, which only a terminal can give: log in there and set the keys"
        )
    if isinstance(error, aws.CredentialRetrievalError) and error.kwargs.get("provider") == "custom-process":
        return f"the credential_process of {profile()} failed: run it by hand to see why"
    if isinstance(error, _UNUSABLE):
        return f"the AWS settings of this machine are not usable ({type(error).__name__}): check ~/.aws and AWS_*"
    return ""


def _named(error: BotoCoreError) -> str:
    """The type of an error, and for credentials the provider."""
    provider = error.kwargs.get("provider") if isinstance(error, aws.CredentialRetrievalError) else None
    return f"{type(error).__name__} of {provider}" if provider else type(error).__name__


def _ahead_seconds(error: ClientError) -> float | None:
    """How far this machine's clock is ahead of the service's; None if the response has no date."""
    headers: Mapping[str, str] = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        at = parsedate_to_datetime(headers.get("date", ""))
    except ValueError:
        return None
    return scheduling.now() - (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
