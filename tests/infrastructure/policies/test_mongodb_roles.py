"""The rights of each role's MongoDB user: for collections that there are, and held by a guard."""

from __future__ import annotations

import re

import pytest
from pymongo.monitoring import CommandStartedEvent

from regworkers_core.infrastructure.policies.platform import SERVICE_ACCOUNTS
from regworkers_core.settings import PROJECT_ROOT
from tests.support.least_privilege import acting_as
from tests.support.mongo_rights import RIGHTS, MongoGuard

RUNTIME = (PROJECT_ROOT / "regworkers_core" / "runtime.py").read_text(encoding="utf-8")
COLLECTIONS = set(re.findall(r'(?:database\[|_collection\(\w+, )"(\w+)"', RUNTIME))


def test_every_role_with_a_user_has_rights_on_collections_that_there_are() -> None:
    # The agent and a run without a duty have no user; docs/security.md has the rights of `provision`.
    assert set(RIGHTS) == set(SERVICE_ACCOUNTS) - {"logs", "run", "provision"} | {"eligibility"}
    for role, rights in RIGHTS.items():
        assert set(rights) == {"readWrite", "append", "read"}, role
        assert not set(rights["readWrite"]) & set(rights["read"]), role
    written = {each for rights in RIGHTS.values() for each in rights["readWrite"]}
    assert written == COLLECTIONS


def test_only_the_role_of_housekeeping_may_remove_from_the_audit_log() -> None:
    assert {role for role, rights in RIGHTS.items() if "operator_actions" in rights["readWrite"]} == {
        "operations"
    }


@pytest.mark.parametrize(
    ("role", "command", "refused"),
    [
        ("replication", {"update": "entries"}, set()),
        ("replication", {"find": "campaigns"}, set()),
        ("replication", {"update": "campaigns"}, {"replication writes campaigns"}),
        ("replication", {"find": "codes"}, {"replication reads codes"}),
        ("web", {"insert": "operator_actions"}, set()),
        ("web", {"update": "operator_actions"}, set()),
        ("web", {"find": "operator_actions"}, set()),
        ("web", {"delete": "operator_actions"}, {"web writes operator_actions"}),
        ("operations", {"delete": "operator_actions"}, set()),
        ("eligibility", {"find": "entries"}, set()),
        ("eligibility", {"update": "entries"}, {"eligibility writes entries"}),
        ("web", {"getMore": 1, "collection": "entries"}, {"web reads entries"}),
        ("selection", {"drop": "draws"}, {"selection drop draws"}),
        ("", {"drop": "draws"}, set()),
    ],
)
def test_the_guard_notes_what_the_user_of_the_running_job_may_not_do(
    role: str, command: dict[str, object], refused: set[str]
) -> None:
    guard = MongoGuard()
    with acting_as(role):
        guard.started(CommandStartedEvent(command, "entry_service", 1, ("127.0.0.1", 1), 1))
    assert guard.taken() == refused and not guard.taken()
