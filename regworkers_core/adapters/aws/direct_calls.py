"""Calls to AWS that carry many items, each as one signed POST, and how responses in JSON are read.

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
from typing import Any
from urllib.parse import urlsplit

import orjson
import urllib3
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.exceptions import (
    BotoCoreError,
    ChecksumError,
    ClientError,
    HTTPClientError,
    ReadTimeoutError,
)
from botocore.parsers import create_parser

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
