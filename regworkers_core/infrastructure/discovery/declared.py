"""All resources that one environment declares on AWS, and their facts in the form in which they are compared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from regworkers_core.infrastructure.dashboards.alarms import alarms
from regworkers_core.infrastructure.dashboards.board import board_body, board_name
from regworkers_core.infrastructure.desired import Fact, Facts, Lifecycle, desired
from regworkers_core.infrastructure.discovery import workers
from regworkers_core.infrastructure.policies.platform import (
    SERVICE_ACCOUNTS,
    all_policies,
    policy_name,
    resource_name,
)
from regworkers_core.infrastructure.policies.statement import place_of
from regworkers_core.settings import Settings

ACCOUNT, LOG_BUCKET = "ACCOUNT", "LOG_BUCKET"
_COMPUTE_LOGS = "compute-logs"
# The bucket of an object, and any bucket: that of a statement on its listing.
_LOG_BUCKET_OF = re.compile(rf"arn:aws:s3:::[^/,\s]+(?=/{_COMPUTE_LOGS}/)")
_LOG_BUCKET_IF = re.compile(r"arn:aws:s3:::[^/,\s]+")


def facts_of_role(attached: list[str]) -> Facts:
    return {"policies": ", ".join(sorted(attached))}


def facts_of_board(body: str) -> Facts:
    """A fact for each widget, by its title. Raises ValueError unless `body` is JSON."""
    widgets = orjson.loads(body).get("widgets", [])
    return {
        f"widget {_title(widget) or number}": orjson.dumps(widget, option=orjson.OPT_SORT_KEYS).decode()
        for number, widget in enumerate(widgets, 1)
    }


def _title(widget: Mapping[str, Any]) -> str:
    return str(widget.get("properties", {}).get("title", ""))


def facts_of_policy(document: Mapping[str, Any]) -> Facts:
    """A fact for each statement. Account and log bucket are not in the settings, so any value counts as equal."""
    facts: dict[str, str] = {}
    for number, statement in enumerate(_many(document.get("Statement")), 1):
        condition, principal = statement.get("Condition"), statement.get("Principal")
        only = statement.get("Resource") or statement.get("NotResource")
        where = "on" if "Resource" in statement else "outside of"
        text = (
            f"{statement.get('Effect')} {', '.join(sorted(map(str, _many(statement.get('Action')))))}"
            f" {where} {', '.join(sorted(map(str, _many(only))))}"
            + (f" for {orjson.dumps(principal).decode()}" if principal else "")
            + (f" if {orjson.dumps(condition, option=orjson.OPT_SORT_KEYS).decode()}" if condition else "")
        )
        text = re.sub(r":\d{12}:", f":{ACCOUNT}:", text)
        log_bucket = _LOG_BUCKET_IF if condition and _COMPUTE_LOGS in str(condition) else _LOG_BUCKET_OF
        text = log_bucket.sub(f"arn:aws:s3:::{LOG_BUCKET}", text)
        facts[f"statement {statement.get('Sid') or number}"] = text
    return facts


def _many(value: Any) -> list[Any]:
    """IAM accepts a single value in place of a list."""
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def redrive_facts(policy: str | None) -> Facts:
    """The facts of a redrive policy in JSON, as SQS and Terraform have it. Raises ValueError unless it is JSON."""
    document = orjson.loads(policy) if policy else {}
    target = str(document.get("deadLetterTargetArn") or "")
    receives = document.get("maxReceiveCount")
    return {
        "deadLetterQueue": target.rsplit(":", 1)[-1] or "none",
        "maxReceives": None if receives is None else int(receives),
    }


def lifecycle_facts(rules: Iterable[Lifecycle]) -> Facts:
    """A fact for each prefix that has an enabled rule."""
    facts: dict[str, Fact] = {}
    for rule in rules:
        facts |= rule.facts
    return facts


def days(value: Any) -> int | None:
    """A rule's number of days; absent and 0 both mean none."""
    return int(value) if value else None


class ResourceKind(StrEnum):
    TABLE = "table"
    QUEUE = "queue"
    BUCKET = "bucket"
    LOG_GROUP = "log group"
    FUNCTION = "function"
    DASHBOARD = "dashboard"
    ALARM = "alarm"
    POLICY = "policy"
    ROLE = "role"
    # The workers in Dagster, which Terraform does not deploy.
    CODE_LOCATION = "code location"


@dataclass(frozen=True, slots=True)
class Declared:
    """One resource."""

    kind: ResourceKind
    name: str
    facts: Facts
    optional: bool = False  # its absence is no difference
    external: bool = False  # another team's, and not in our Terraform


def declared(settings: Settings) -> list[Declared]:
    """Every resource, by `ResourceKind`. On the embedded stack, policies, roles, dashboards and alarms are optional."""
    wanted, local = desired(settings), settings.environment == "local-dev"
    return [
        *(
            Declared(ResourceKind.TABLE, each.name, each.facts, external=each.external)
            for each in wanted.tables
        ),
        *(Declared(ResourceKind.QUEUE, each.name, each.facts) for each in wanted.queues),
        Declared(
            ResourceKind.BUCKET,
            wanted.bucket.name,
            {**wanted.bucket.facts, **facts_of_policy(wanted.bucket.policy)},
        ),
        Declared(ResourceKind.LOG_GROUP, wanted.log_group.name, wanted.log_group.facts),
        Declared(ResourceKind.FUNCTION, wanted.function.name, wanted.function.facts, local),
        Declared(ResourceKind.DASHBOARD, board_name(settings), facts_of_board(board_body(settings)), local),
        *(Declared(ResourceKind.ALARM, each.name, each.facts, local) for each in alarms(settings)),
        *_policies(settings, local),
        *_roles(settings, local),
        Declared(ResourceKind.CODE_LOCATION, workers.NAME, workers.declared_workers(local=local), local),
    ]


def _policies(settings: Settings, local: bool) -> Iterator[Declared]:
    place = place_of(settings, account=ACCOUNT, log_bucket=LOG_BUCKET)
    for short, document in all_policies(place).items():
        name = resource_name(place, short)
        yield Declared(ResourceKind.POLICY, name, facts_of_policy(document), local)


def _roles(settings: Settings, local: bool) -> Iterator[Declared]:
    place = place_of(settings, account=ACCOUNT, log_bucket=LOG_BUCKET)
    for role in SERVICE_ACCOUNTS:
        attached = [resource_name(place, policy_name(role))]
        yield Declared(ResourceKind.ROLE, resource_name(place, role), facts_of_role(attached), local)
    function = desired(settings).function
    attached = [resource_name(place, policy_name(function.role)), function.network_policy]
    yield Declared(ResourceKind.ROLE, function.name, facts_of_role(attached), local)
