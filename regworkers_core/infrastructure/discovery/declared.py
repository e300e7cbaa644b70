"""All that one environment is declared to have on AWS, whatever makes it: provisioning, publishing, Terraform."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from regworkers_core.infrastructure.dashboards.alarms import alarms
from regworkers_core.infrastructure.dashboards.board import board_body, board_name
from regworkers_core.infrastructure.desired import Facts, desired
from regworkers_core.infrastructure.discovery.facts import (
    ACCOUNT,
    LOG_BUCKET,
    facts_of_board,
    facts_of_policy,
    facts_of_role,
)
from regworkers_core.infrastructure.policies.everyone import WORKERS
from regworkers_core.infrastructure.policies.roles import ROLES, resource_name
from regworkers_core.infrastructure.policies.statement import place_of
from regworkers_core.settings import Settings


class Kind(StrEnum):
    TABLE = "table"
    QUEUE = "queue"
    BUCKET = "bucket"
    LOG_GROUP = "log group"
    DASHBOARD = "dashboard"
    ALARM = "alarm"
    POLICY = "policy"
    ROLE = "role"


@dataclass(frozen=True, slots=True)
class Declared:
    """`optional`: compared where it stands, and not missed where it does not."""

    kind: Kind
    name: str
    facts: Facts
    optional: bool = False


def declared(settings: Settings) -> list[Declared]:
    """In the order of `Kind`. On the embedded stack nobody checks policies, and nothing is watched."""
    wanted, local = desired(settings), settings.environment == "local-dev"
    return [
        *(Declared(Kind.TABLE, each.name, each.facts) for each in wanted.tables),
        *(Declared(Kind.QUEUE, each.name, each.facts) for each in wanted.queues),
        Declared(Kind.BUCKET, wanted.bucket.name, wanted.bucket.facts),
        Declared(Kind.LOG_GROUP, wanted.log_group.name, wanted.log_group.facts),
        Declared(Kind.DASHBOARD, board_name(settings), facts_of_board(board_body(settings)), local),
        *(Declared(Kind.ALARM, each.name, each.facts, local) for each in alarms(settings)),
        *_policies(settings, local),
        *_roles(settings, local),
    ]


def _policies(settings: Settings, local: bool) -> Iterator[Declared]:
    place = place_of(settings, account=ACCOUNT, log_bucket=LOG_BUCKET)
    for worker in WORKERS:
        name = resource_name(place, worker.name)
        yield Declared(Kind.POLICY, name, facts_of_policy(name, worker.policy(place)), local)


def _roles(settings: Settings, local: bool) -> Iterator[Declared]:
    place = place_of(settings, account=ACCOUNT, log_bucket=LOG_BUCKET)
    for short, policies in ROLES.items():
        attached = [resource_name(place, policy) for policy in policies]
        yield Declared(Kind.ROLE, resource_name(place, short), facts_of_role(attached), local)
