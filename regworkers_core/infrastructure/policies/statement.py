"""Statements of IAM as the code declares them, and the documents that AWS takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from regworkers_core.settings import Names, Settings


@dataclass(frozen=True, slots=True)
class Place:
    """Where resources are; `namespace` is that of our metrics, `log_bucket` holds Dagster's compute logs."""

    names: Names
    region: str
    account: str
    namespace: str
    log_bucket: str


# As the files in deploy/ have it, to be replaced for each environment.
PLACEHOLDERS = Place(
    Names("PREFIX", bucket="PREFIXregworkers-artefacts"), "REGION", "ACCOUNT", "regworkers", "LOG_BUCKET"
)


def place_of(settings: Settings, *, account: str, log_bucket: str) -> Place:
    """The place that the settings name; account and log bucket are not among them."""
    return Place(
        settings.names,
        settings.aws.region,
        account,
        settings.observability.cloudwatch_namespace,
        log_bucket,
    )


# The ARN of a resource, once it is known where.
Resource = Callable[[Place], str]


@dataclass(frozen=True, slots=True)
class Statement:
    """`actions` on `resources`, one by one: no wildcards in actions. `condition` is IAM's."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[Resource, ...]
    condition: Callable[[Place], Mapping[str, Any]] | None = None

    def rendered(self, place: Place) -> dict[str, Any]:
        document: dict[str, Any] = {
            "Sid": self.sid,
            "Effect": "Allow",
            "Action": sorted(self.actions),
            "Resource": [resource(place) for resource in self.resources],
        }
        if self.condition is not None:
            document["Condition"] = dict(self.condition(place))
        return document


@dataclass(frozen=True, slots=True)
class Worker:
    """One role: `does` says in a few words for whom its policy is."""

    name: str
    does: str
    statements: tuple[Statement, ...]
    # Needed only when something goes wrong, or in an environment that is not the usual one.
    seldom: frozenset[str] = field(default_factory=frozenset)

    def policy(self, place: Place) -> dict[str, Any]:
        """A policy document of IAM."""
        return {
            "Version": "2012-10-17",
            "Statement": [statement.rendered(place) for statement in self.statements],
        }

    @property
    def actions(self) -> set[str]:
        return {action for statement in self.statements for action in statement.actions}


def table(place: Place) -> str:
    return _arn(place, "dynamodb", f"table/{place.names.demand_table}")


def leases(place: Place) -> str:
    return _arn(place, "dynamodb", f"table/{place.names.lease_table}")


def stream(place: Place) -> str:
    return table(place) + "/stream/*"


def queue(name: str) -> Resource:
    """By its name without the prefix."""
    return lambda place: _arn(place, "sqs", place.names.prefix + name)


def bucket(place: Place) -> str:
    return f"arn:aws:s3:::{place.names.bucket}"


def objects(*folders: str) -> tuple[Resource, ...]:
    """All objects below each of the folders of the artefacts' bucket."""

    def below(folder: str) -> Resource:
        return lambda place: f"{bucket(place)}/{folder}/*"

    return tuple(below(folder) for folder in folders)


def secret(pattern: str) -> Resource:
    return lambda place: _arn(place, "secretsmanager", f"secret:{place.names.prefix}{pattern}")


def log_group(place: Place) -> str:
    return _arn(place, "logs", f"log-group:/{place.names.prefix}regworkers")


def of_service(service: str, resource: str) -> Resource:
    """Whatever else of a service: `of_service("logs", "log-group:*")`."""
    return lambda place: _arn(place, service, resource)


def prefixed(service: str, kind: str, *, regional: bool = True) -> Resource:
    """Every resource of a kind whose name begins as ours do: `alarm:PREFIXregworkers-*`."""
    return lambda place: _arn(
        place, service, f"{kind}{place.names.prefix}regworkers-*", region=place.region if regional else ""
    )


def everything(_place: Place) -> str:
    """For the few actions that know no resources."""
    return "*"


def _arn(place: Place, service: str, resource: str, *, region: str | None = None) -> str:
    return f"arn:aws:{service}:{place.region if region is None else region}:{place.account}:{resource}"
