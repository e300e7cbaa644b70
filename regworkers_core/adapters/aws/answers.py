"""What the services answer in JSON, read fast and not taken for what it is not.

botocore reads a good status without JSON (a proxy's page, say) as an answer without content: every key absent, a shard
read to its end, everything sent. Here it raises, so that it is an attempt that failed.
"""

from __future__ import annotations

import json
from typing import Any

import orjson
from botocore.exceptions import BotoCoreError

# Answers that carry many items. In the JSON protocol of DynamoDB and SQS they arrive as botocore would hand them out
# (but for binary values and times, which their readers take in both forms or not at all), so that walking each by its
# model, which is half of a drain's CPU, buys nothing. Beside each the member that it always has, however little there
# is to tell (None: there is none).
_LARGE_ANSWERS = {
    "dynamodb.BatchGetItem": "Responses",
    "dynamodb.BatchExecuteStatement": "Responses",
    "dynamodb.Query": "Count",
    "dynamodb.Scan": "Count",
    "dynamodbstreams.GetRecords": "Records",
    "sqs.ReceiveMessage": None,
}
# What is below is a good status to botocore.
FIRST_REFUSAL = 300


class UnreadableAnswer(BotoCoreError):  # type: ignore[misc]
    """Another server may have answered."""

    fmt = "the answer is none of the service's"


def read_answers_here(client: Any) -> None:
    """For every operation of a boto3 client that answers in JSON."""
    model = client.meta.service_model
    if model.resolved_protocol == "json":
        client.meta.events.register("before-parse", _read)


def json_object(body: bytes, member: str | None = None) -> dict[str, Any]:
    """Raises UnreadableAnswer, also when the object lacks `member`."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            # It takes lone surrogates, which an attribute may hold.
            answer = json.loads(body)
        except ValueError:
            raise UnreadableAnswer from None
    if not isinstance(answer, dict) or (member is not None and member not in answer):
        raise UnreadableAnswer
    return answer


def _read(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], operation_model: Any, **_: Any
) -> None:
    """botocore's hook before it parses: what is put into the customized answer is the answer."""
    if response_dict["status_code"] >= FIRST_REFUSAL or operation_model.has_streaming_output:
        return
    body = response_dict["body"]
    if not body and operation_model.output_shape is None:
        return
    name = f"{operation_model.service_model.service_name}.{operation_model.name}"
    answer = json_object(body, _LARGE_ANSWERS.get(name))
    if name in _LARGE_ANSWERS:
        customized_response_dict.update(answer)
        response_dict["body"] = b""
