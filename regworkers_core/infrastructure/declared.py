"""All resources that one environment declares on AWS, and their facts in the form in which they are compared; and the
deployed workers, as Dagster shows them: code location, jobs, sensors and schedules, version of the image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from typing import Any

import orjson

from regworkers_core.domain.snapshot import Unread
from regworkers_core.flows import DRAINS, RUN_JOBS
from regworkers_core.infrastructure.alarms import alarms
from regworkers_core.infrastructure.board import board_body, board_name
from regworkers_core.infrastructure.desired import Fact, Facts, Lifecycle, desired
from regworkers_core.infrastructure.policies.platform import (
    SERVICE_ACCOUNTS,
    all_policies,
    policy_name,
    resource_name,
)
from regworkers_core.infrastructure.policies.statement import place_of
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings

LOCATION = "regworkers"
# Dagster has these in this version: without one of them, fans or copies wait.
JOBS = frozenset((*RUN_JOBS, *(spec.job for spec in DRAINS)))
QUERY = """query Deployed { workspaceOrError { __typename ... on Workspace { locationEntries {
  name displayMetadata { key value }
  locationOrLoadError { __typename ... on RepositoryLocation { repositories {
    jobs { name } sensors { name sensorState { status } } schedules { name scheduleState { status } } } } } } } } }"""


def declared_workers(*, local: bool) -> Facts:
    """On a laptop there is no image, so no version."""
    facts: dict[str, Fact] = {"codeLocation": "loaded", "jobs": "all", "sensorsAndSchedules": "on"}
    return facts if local else {**facts, "version": version("regworkers")}


def find_workers(runtime: Runtime) -> Mapping[str, Fact | Unread] | None:
    """None if Dagster has no such code location. Raises TransientFailure, and UsageError without an address."""
    local = runtime.settings.environment == "local-dev"
    if local and not runtime.settings.dagster.url:
        return None
    workspace = runtime.dagster.ask(QUERY)["workspaceOrError"]
    broken = []
    for entry in workspace.get("locationEntries", ()):
        repositories = (entry["locationOrLoadError"] or {}).get("repositories")
        if repositories is None:
            broken.append(entry["name"])
        for repository in repositories or ():
            jobs = {job["name"] for job in repository["jobs"]}
            if jobs & JOBS:
                metadata = {each["key"]: each["value"] for each in entry["displayMetadata"]}
                return {
                    "codeLocation": "loaded",
                    "jobs": _or("all", "without", JOBS - jobs),
                    "sensorsAndSchedules": _or("on", "off:", _stopped(repository)),
                    **({} if local else {"version": _version(metadata.get("image") or "")}),
                }
    return {"codeLocation": f"does not load: {', '.join(sorted(broken))}"} if broken else None


def _stopped(repository: Mapping[str, Any]) -> set[str]:
    states = [(each["name"], each["sensorState"]) for each in repository["sensors"]]
    states += [(each["name"], each["scheduleState"]) for each in repository["schedules"]]
    return {name for name, state in states if state["status"] != "RUNNING"}


def _or(fine: str, word: str, names: frozenset[str] | set[str]) -> str:
    return f"{word} {', '.join(sorted(names))}" if names else fine


def _version(image: str) -> str | Unread:
    """The tag of the image, which is the version of the release."""
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    return tag or Unread(f"Dagster names no tag of the image (DAGSTER_CURRENT_IMAGE): {image or 'none'}")


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
        Declared(ResourceKind.CODE_LOCATION, LOCATION, declared_workers(local=local), local),
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
