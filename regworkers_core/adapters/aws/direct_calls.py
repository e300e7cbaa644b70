"""DynamoDB's two batch operations, each as one signed POST: the read of every check, and the write of invite uploads.

boto3 spends 0.24 ms of CPU on such a read and 0.52 ms on such a write beyond what they need: on endpoint rules, hooks
and models, which are the same for each call. `docs/decisions/0011-direct-calls-to-dynamodb.md` has the figures and says
why only these two avoid it. The client's signer, credentials, connections (with their time-outs, certificates and
proxies) and errors stay in use; its account-based endpoint does not, because the region's serves every table.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.exceptions import ChecksumError, ClientError
from botocore.parsers import create_parser

from regworkers_core.adapters.aws.clients import FIRST_REFUSAL, UnreadableAnswer, json_object

GET, WRITE = "BatchGetItem", "BatchWriteItem"
# DynamoDB's responses always have these members.
_ANSWERED = {GET: "Responses", WRITE: "UnprocessedItems"}


class DirectCalls:
    """Replaces a boto3 client of DynamoDB for these two operations. Safe to share between threads.

    Binary values are base64 texts, as on the wire. Both operations raise ClientError if DynamoDB refuses, and a
    BotoCoreError if it cannot be reached, does not answer in time, or the response is not its own (UnreadableAnswer,
    ChecksumError).
    """

    def __init__(self, client: Any) -> None:
        # Its signer needs it to stay alive.
        self._client = client
        # Private attributes, because botocore has no public ones: a test fails when they change.
        self._http, self._signer = client._endpoint.http_session, client._request_signer
        url = client.meta.endpoint_url
        self._url = url if urlsplit(url).path else f"{url}/"
        model = client.meta.service_model
        self.operations = {name: model.operation_model(name) for name in _ANSWERED}
        self._parser = create_parser(model.metadata["protocol"])
        self._headers = {
            name: {
                "X-Amz-Target": f"{model.metadata['targetPrefix']}.{name}",
                "Content-Type": f"application/x-amz-json-{model.metadata['jsonVersion']}",
                "User-Agent": client.meta.config.user_agent,
            }
            for name in _ANSWERED
        }

    def batch_get_item(self, *, RequestItems: Mapping[str, Any]) -> dict[str, Any]:
        return self.call(GET, RequestItems)

    def batch_write_item(self, *, RequestItems: Mapping[str, Any]) -> dict[str, Any]:
        return self.call(WRITE, RequestItems)

    def call(self, operation: str, request_items: Mapping[str, Any]) -> dict[str, Any]:
        """Make one call. `operation` is GET or WRITE."""
        # With the library that botocore uses: keys are untrusted, and it encodes any text.
        body = json.dumps({"RequestItems": request_items}).encode()
        request = AWSRequest(method="POST", url=self._url, headers=self._headers[operation], data=body)
        self._signer.sign(operation, request)
        answer = self._http.send(request.prepare())
        if answer.status_code >= FIRST_REFUSAL:
            raise self._refusal(operation, answer)
        _require_whole(answer)
        return json_object(answer.content, _ANSWERED[operation])

    def _refusal(self, operation: str, answer: AWSResponse) -> Any:
        """The exception for a refused call."""
        response = {
            "status_code": answer.status_code,
            "headers": answer.headers,
            "body": answer.content,
            "context": {"operation_name": operation},
        }
        try:
            parsed = self._parser.parse(response, self.operations[operation].output_shape)
        except (AttributeError, ValueError):
            # The parser expects a service's response; a proxy may have sent anything.
            return UnreadableAnswer()
        return ClientError(parsed, operation)


def _require_whole(answer: AWSResponse) -> None:
    """Raises ChecksumError if the body does not match DynamoDB's checksum."""
    expected, actual = answer.headers.get("x-amz-crc32"), str(zlib.crc32(answer.content))
    if expected not in (None, actual):
        raise ChecksumError(checksum_type="crc32", expected_checksum=expected, actual_checksum=actual)
