"""BatchGetItem as one signed POST: the read that every check waits for.

Around this call boto3 spends more CPU than a check spends on its rules and its facts together: endpoint rules, hooks,
models (benchmarks/README.md, *A warm check*). None of it matters to a call that is the same each time. What remains is
the client's own: its signer with its credentials, its connections with their time-outs, certificates and proxies, and
its errors, so that they mean what they always mean. Writes, and whoever asks for much at once, go through boto3 as a
whole.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.exceptions import ChecksumError, ClientError
from botocore.parsers import create_parser

from regworkers_core.adapters.aws.answers import json_object

_OPERATION = "BatchGetItem"


class BatchGet:
    """By a boto3 client of DynamoDB; safe to share between threads."""

    def __init__(self, client: Any) -> None:
        # Its signer does not live without it.
        self._client = client
        # Of these two there is no public form; tests compare what comes of them with what boto3 does.
        self._http, self._signer = client._endpoint.http_session, client._request_signer
        self._url: str = client.meta.endpoint_url.rstrip("/") + "/"
        model = client.meta.service_model
        self.operation = model.operation_model(_OPERATION)
        self._parser = create_parser(model.metadata["protocol"])
        self._headers = {
            "X-Amz-Target": f"{model.metadata['targetPrefix']}.{_OPERATION}",
            "Content-Type": f"application/x-amz-json-{model.metadata['jsonVersion']}",
            "User-Agent": client.meta.config.user_agent,
        }

    def __call__(self, request_items: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to these `RequestItems`, as DynamoDB wrote it: binary values in base64.

        Raises ClientError when DynamoDB refuses, another BotoCoreError when it is not reached or does not answer in
        the client's time.
        """
        # By the library that botocore takes: keys come from anybody, and it encodes any text.
        body = json.dumps({"RequestItems": request_items}).encode()
        request = AWSRequest(method="POST", url=self._url, headers=self._headers, data=body)
        self._signer.sign(_OPERATION, request)
        answer = self._http.send(request.prepare())
        if answer.status_code == 200:
            _require_whole(answer)
            return json_object(answer.content)
        raise self._refusal(answer)

    def _refusal(self, answer: AWSResponse) -> ClientError:
        response = {
            "status_code": answer.status_code,
            "headers": answer.headers,
            "body": answer.content,
            "context": {"operation_name": _OPERATION},
        }
        return ClientError(self._parser.parse(response, self.operation.output_shape), _OPERATION)


def _require_whole(answer: AWSResponse) -> None:
    """DynamoDB sends a checksum along."""
    expected, actual = answer.headers.get("x-amz-crc32"), str(zlib.crc32(answer.content))
    if expected not in (None, actual):
        raise ChecksumError(checksum_type="crc32", expected_checksum=expected, actual_checksum=actual)
