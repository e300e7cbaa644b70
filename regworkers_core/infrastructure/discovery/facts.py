"""Resources in the flat terms in which they are compared, from what IAM, SQS, S3 and CloudWatch hand out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from regworkers_core.infrastructure.desired import Fact, Facts, Lifecycle

ACCOUNT, LOG_BUCKET = "ACCOUNT", "LOG_BUCKET"
_COMPUTE_LOGS = "compute-logs"


def facts_of_role(attached: list[str]) -> Facts:
    return {"policies": ", ".join(sorted(attached))}


def facts_of_board(body: str) -> Facts:
    """A fact for each widget, by its title, so that a difference says where. `body` is JSON; ValueError if not."""
    widgets = orjson.loads(body).get("widgets", [])
    return {
        f"widget {_title(widget) or number}": orjson.dumps(widget, option=orjson.OPT_SORT_KEYS).decode()
        for number, widget in enumerate(widgets, 1)
    }


def _title(widget: Mapping[str, Any]) -> str:
    return str(widget.get("properties", {}).get("title", ""))


def facts_of_policy(name: str, document: Mapping[str, Any]) -> Facts:
    """A fact for each statement. Account and log bucket, which the settings do not know, count as the same."""
    facts: dict[str, str] = {}
    for number, statement in enumerate(_many(document.get("Statement")), 1):
        condition = statement.get("Condition")
        text = (
            f"{statement.get('Effect')} {', '.join(sorted(map(str, _many(statement.get('Action')))))}"
            f" on {', '.join(sorted(map(str, _many(statement.get('Resource')))))}"
            + (f" if {orjson.dumps(condition, option=orjson.OPT_SORT_KEYS).decode()}" if condition else "")
        )
        text = re.sub(r":\d{12}:", f":{ACCOUNT}:", text)
        if name.endswith(f"-{_COMPUTE_LOGS}"):
            text = re.sub(r"arn:aws:s3:::[^/,\s]+", f"arn:aws:s3:::{LOG_BUCKET}", text)
        facts[f"statement {statement.get('Sid') or number}"] = text
    return facts


def _many(value: Any) -> list[Any]:
    """IAM takes one where it takes several."""
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def redrive_facts(policy: str | None) -> Facts:
    """Of a redrive policy as SQS and Terraform have it, in JSON; ValueError when it is none."""
    document = orjson.loads(policy) if policy else {}
    target = str(document.get("deadLetterTargetArn") or "")
    receives = document.get("maxReceiveCount")
    return {
        "deadLetterQueue": target.rsplit(":", 1)[-1] or "none",
        "maxReceives": None if receives is None else int(receives),
    }


def lifecycle_facts(rules: Iterable[Lifecycle]) -> Facts:
    """A fact for each prefix that has a rule in force."""
    facts: dict[str, Fact] = {}
    for rule in rules:
        facts |= rule.facts
    return facts


def days(value: Any) -> int | None:
    """What a rule says in days; what it does not say comes as nothing, or as 0."""
    return int(value) if value else None
