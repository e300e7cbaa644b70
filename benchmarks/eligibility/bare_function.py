"""The calls that a check cannot do without, by unmodified clients, as a Lambda function."""

from __future__ import annotations

import os
from typing import Any

import boto3
import redis
from pymongo import MongoClient

_DYNAMODB = boto3.client("dynamodb", endpoint_url=os.environ["BARE_AWS"], region_name="us-east-1")
_REDIS = redis.Redis.from_url(os.environ["BARE_REDIS"])
_ENTRIES: Any = MongoClient(os.environ["BARE_MONGO"])[os.environ["BARE_DATABASE"]]["entries"]


def handler(event: dict[str, Any], _context: object) -> str:
    """One GET, one BatchGet and one query; the answers are not looked at."""
    _REDIS.get(event["cached"])
    _DYNAMODB.batch_get_item(RequestItems=event["items"])
    list(_ENTRIES.find(event["entries"], limit=2))
    return "done"
