"""boto3 clients with time-outs and a pool, what botocore's exceptions mean, and the calls that carry many items: each
is one signed POST.

boto3 spends 0.1 to 1.3 ms of CPU on such a call beyond what it needs: on endpoint rules and models, which are the same
for each call, and on a walk through the response. `docs/decisions/0011-direct-calls.md` has the figures. The client's
signer, credentials, connections (with their time-outs, certificates and proxies), hooks and errors stay in use;
DynamoDB's account-based endpoint does not, because the region's serves every table.

botocore takes a 2xx response without JSON (the page of a proxy, for instance) for an empty answer: every key absent, a
shard read to its end, everything sent. Here it raises, so that the attempt has failed.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
import orjson
import urllib3
from botocore import exceptions as aws
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ChecksumError,
    ClientError,
    HTTPClientError,
    ReadTimeoutError,
)
from botocore.loaders import Loader, create_loader
from botocore.parsers import create_parser

from fairdraw import scheduling
from regworkers_core.adapters.aws.answers import AwsRefusal, error_code, login, meaning_of_code, profile
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Classify
from regworkers_core.settings import AwsSettings

# The operations of each service, and the member that its responses always have (None: there is none).
_DIRECT: Mapping[str, Mapping[str, str | None]] = {
    "dynamodb": {
        "BatchExecuteStatement": "Responses",
        "BatchGetItem": "Responses",
        "BatchWriteItem": "UnprocessedItems",
        "Query": "Count",
        "Scan": "Count",
    },
    "dynamodbstreams": {"GetRecords": "Records"},
    "sqs": dict.fromkeys(
        ("ChangeMessageVisibilityBatch", "DeleteMessageBatch", "ReceiveMessage", "SendMessageBatch")
    ),
}
# botocore accepts any status below this.
FIRST_REFUSAL = 300


class UnreadableAnswer(BotoCoreError):  # type: ignore[misc]
    """The response is not the service's: another server may have answered."""

    fmt = "the response is not the service's"


def json_object(body: bytes, member: str | None = None) -> dict[str, Any]:
    """Parse a response. Raises UnreadableAnswer unless it is an object that has `member`."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            # This parser accepts lone surrogates, which an attribute may have.
            answer = json.loads(body)
        except ValueError:
            raise UnreadableAnswer from None
    if not isinstance(answer, dict) or (member is not None and member not in answer):
        raise UnreadableAnswer
    return answer


class DirectCalls:
    """Makes the operations of `_DIRECT` for a boto3 client, and leaves the others to it. Safe to share between threads.

    In responses, binary values are base64 texts and times are numbers, as on the wire. A call raises ClientError if the
    service refuses, and a BotoCoreError if it cannot be reached, does not answer in time, or the response is not its
    own (UnreadableAnswer, ChecksumError).
    """

    def __init__(self, client: Any) -> None:
        # Private attributes, because botocore has no public ones: a test fails when they change.
        self._others = client._make_api_call
        self._http, self._signer = client._endpoint.http_session, client._request_signer
        self._hooks = client.meta.events
        url = client.meta.endpoint_url
        self._url = url if urlsplit(url).path else f"{url}/"
        model = client.meta.service_model
        self._service = model.service_id.hyphenize()
        self._members = _DIRECT[model.service_name]
        self._models = {name: model.operation_model(name) for name in self._members}
        self._parser = create_parser("json")
        headers = {
            "Content-Type": f"application/x-amz-json-{model.metadata['jsonVersion']}",
            "User-Agent": client.meta.config.user_agent,
            # SQS then names errors as it did before it had JSON.
            **({"x-amzn-query-mode": "true"} if model.is_query_compatible else {}),
        }
        target = model.metadata["targetPrefix"]
        self._headers = {name: {"X-Amz-Target": f"{target}.{name}", **headers} for name in self._members}

    @classmethod
    def install(cls, client: Any) -> None:
        """Make the calls of a client from here on."""
        if client.meta.service_model.service_name in _DIRECT:
            client._make_api_call = cls(client).call

    def call(self, operation: str, parameters: Mapping[str, Any]) -> Any:
        """It takes the place of botocore's `_make_api_call`."""
        model = self._models.get(operation)
        if model is None:
            return self._others(operation, parameters)
        hook = f"{self._service}.{operation}"
        self._hooks.emit(f"before-parameter-build.{hook}", params=parameters, model=model, context={})
        # With the library that botocore uses: keys are untrusted, and it encodes any text.
        body = json.dumps(parameters, default=_base64).encode()
        request = AWSRequest(
            method="POST", url=self._url, headers=self._headers[operation], data=body, stream_output=True
        )
        self._signer.sign(operation, request)
        answer = self._http.send(request.prepare())
        body = self._body(answer)
        refused = answer.status_code >= FIRST_REFUSAL
        parsed = (self._refusal if refused else self._accepted)(model, answer, body)
        self._hooks.emit(f"after-call.{hook}", http_response=answer, parsed=parsed, model=model, context={})
        if refused:
            raise ClientError(parsed, operation)
        return parsed

    def _body(self, answer: AWSResponse) -> bytes:
        """Read at once: botocore reads 64 KB at a time, and after each waits for the interpreter's lock."""
        try:
            body: bytes = answer.raw.read()
        except urllib3.exceptions.ReadTimeoutError as error:
            raise ReadTimeoutError(endpoint_url=self._url, error=error) from error
        except urllib3.exceptions.HTTPError as error:
            raise HTTPClientError(error=error) from error
        return body

    def _accepted(self, model: Any, answer: AWSResponse, body: bytes) -> dict[str, Any]:
        # DynamoDB sends a checksum.
        expected = answer.headers.get("x-amz-crc32")
        if expected is not None and expected != (actual := str(zlib.crc32(body))):
            raise ChecksumError(checksum_type="crc32", expected_checksum=expected, actual_checksum=actual)
        parsed = json_object(body, self._members[model.name])
        parsed["ResponseMetadata"] = {"HTTPStatusCode": answer.status_code, "HTTPHeaders": answer.headers}
        return parsed

    def _refusal(self, model: Any, answer: AWSResponse, body: bytes) -> Any:
        response = {
            "status_code": answer.status_code,
            "headers": answer.headers,
            "body": body,
            "context": {"operation_name": model.name},
        }
        try:
            return self._parser.parse(response, model.output_shape)
        except (AttributeError, ValueError):
            # The parser expects a service's response; a proxy may have sent anything.
            raise UnreadableAnswer from None


def _base64(value: object) -> str:
    """JSON of what JSON has no type for. Raises TypeError unless it is a binary value."""
    if not isinstance(value, bytes):
        raise TypeError(f"no JSON for {type(value).__name__}")
    return base64.b64encode(value).decode()


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
