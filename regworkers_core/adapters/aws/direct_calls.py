"""The two batch operations of DynamoDB, each call as one signed POST: the read that every check waits for, and the
write that an upload of invites makes tens of thousands of times.

Around such a call boto3 spends more CPU than a check spends on its rules and its facts together, or an upload on 25
rows of its list: endpoint rules, hooks, walking models (benchmarks/README.md, *Eligibility*). None of it matters to a
call that is the same each time. What remains is the client's own: its signer with its credentials, its connections with
their time-outs, certificates and proxies, and its errors, so that they mean what they always mean. (Not its
account-based endpoint: the region's serves every table.) Everything else goes through boto3 as a whole.
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

from regworkers_core.adapters.aws.answers import FIRST_REFUSAL, UnreadableAnswer, json_object

GET, WRITE = "BatchGetItem", "BatchWriteItem"
# What DynamoDB's answer to them always has.
_ANSWERED = {GET: "Responses", WRITE: "UnprocessedItems"}


class DirectCalls:
    """By a boto3 client of DynamoDB, in whose place it can stand for these two; safe to share between threads.

    Binary values are base64 texts, as on the wire. Both raise ClientError when DynamoDB refuses, a BotoCoreError when
    it is not reached, does not answer in the client's time, or not as it would (UnreadableAnswer, ChecksumError).
    """

    def __init__(self, client: Any) -> None:
        # Its signer does not live without it.
        self._client = client
        # Of these two there is no public form; tests compare what comes of them with what boto3 does.
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
        """`operation` is GET or WRITE."""
        # By the library that botocore uses: keys are untrusted, and it encodes any text.
        body = json.dumps({"RequestItems": request_items}).encode()
        request = AWSRequest(method="POST", url=self._url, headers=self._headers[operation], data=body)
        self._signer.sign(operation, request)
        answer = self._http.send(request.prepare())
        if answer.status_code >= FIRST_REFUSAL:
            raise self._refusal(operation, answer)
        _require_whole(answer)
        return json_object(answer.content, _ANSWERED[operation])

    def _refusal(self, operation: str, answer: AWSResponse) -> Any:
        """The exception to raise."""
        response = {
            "status_code": answer.status_code,
            "headers": answer.headers,
            "body": answer.content,
            "context": {"operation_name": operation},
        }
        try:
            parsed = self._parser.parse(response, self.operations[operation].output_shape)
        except (AttributeError, ValueError):
            # It reads what a service writes; in between, others write what they like.
            return UnreadableAnswer()
        return ClientError(parsed, operation)


def _require_whole(answer: AWSResponse) -> None:
    """DynamoDB sends a checksum along."""
    expected, actual = answer.headers.get("x-amz-crc32"), str(zlib.crc32(answer.content))
    if expected not in (None, actual):
        raise ChecksumError(checksum_type="crc32", expected_checksum=expected, actual_checksum=actual)
