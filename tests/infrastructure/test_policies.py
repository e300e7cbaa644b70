"""The guard of the suite's AWS calls goes red when a policy lacks what is needed; roles of MongoDB, and the bucket."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import pytest
from pymongo.monitoring import CommandStartedEvent

from regworkers_core.analytics.publishing import DRAINS as PUBLISH
from regworkers_core.infrastructure.desired import bucket_policy
from regworkers_core.infrastructure.policies.platform import ROLES, SERVICE_ACCOUNTS, WORKERS, role_policy
from regworkers_core.infrastructure.policies.statement import place_of
from regworkers_core.replication.reconcile.repair import replicate
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from tests.analytics.world import queue_events, removed
from tests.infrastructure.deploy.policies import OF_DAGSTER, ONLY_GUARDED, Call
from tests.support.drains import run
from tests.support.entries import key, put
from tests.support.least_privilege import GUARD, Guard, Made, acting_as, policies, running, watched
from tests.support.mongo_rights import RIGHTS, MongoGuard
from tests.support.runtimes import test_settings

pytestmark = pytest.mark.namespace("module")


def test_every_action_that_a_drain_makes_is_missed_when_its_policy_lacks_it(runtime: Runtime) -> None:
    put(runtime, key("e1"))
    put(runtime, key("bad"), email=None)
    queue_events(runtime, [removed(1)])
    with watched(Guard(keep=True)) as guard:
        for name in ("enqueue", "save", *(spec.name for spec in PUBLISH)):
            run(runtime, name)
    made = {each for each in guard.made if each.worker in ("enqueue", "save", "publish")}
    needed = {(each.worker, each.call.action) for each in made}
    assert len(needed) >= 15 and {worker for worker, _ in needed} == {"enqueue", "save", "publish"}
    for worker, action in needed:
        lacking = Guard(policies(without=(worker, action)))
        for each in made:
            lacking.note(each)
        assert {(each.worker, each.call.action) for each in lacking.broken} == {(worker, action)}


def test_a_drain_is_held_to_its_own_policy_and_not_to_its_neighbours(runtime: Runtime) -> None:
    put(runtime, key("e2"))
    with watched(Guard(policies(without=("enqueue", "sqs:SendMessage")))) as guard:
        run(runtime, "enqueue")
    assert {each.call.action for each in guard.broken} == {"sqs:SendMessage"}
    queue = f"arn:aws:sqs:REGION:ACCOUNT:{runtime.names.analytics_queue}"
    assert not Guard().allowed(Made("enqueue", Call("sqs:SendMessage", queue)))
    assert Guard().allowed(Made("", Call("sqs:SendMessage", queue)))


def test_every_worker_is_compared_with_its_calls_or_named_with_its_reason() -> None:
    sources = [each.read_text() for each in (PROJECT_ROOT / "tests/infrastructure/deploy").glob("test_*.py")]
    found = {
        name
        for text in sources
        for name in re.findall(r'(?m)\b(?:needs|compare)\("([\w-]+)"|^ +\("([\w-]+)", \w+', text)
    }
    compared = {name for names in found for name in names}
    assert {each.name for each in WORKERS} - compared - {*OF_DAGSTER} == ONLY_GUARDED.keys()


def test_a_call_that_only_provisioning_may_make_is_refused_to_everybody_else() -> None:
    table = "arn:aws:dynamodb:REGION:ACCOUNT:table/any-demand-table"
    guard = Guard()
    assert guard.allowed(Made("provision", Call("dynamodb:UpdateTable", table)))
    assert not guard.allowed(Made("", Call("dynamodb:UpdateTable", table)))


def test_what_the_product_calls_outside_of_all_policies_is_noted_and_what_a_test_arranges_is_not(
    runtime: Runtime,
) -> None:
    put(runtime, key("e3"))
    with watched(Guard(policies(without=("*", "sqs:SendMessage")))) as guard:
        replicate(runtime, key("e3"))
        assert {each.call.action for each in guard.taken()} == {"sqs:SendMessage"}
        # Through an adapter, past it, and with clients of its own.
        runtime.secrets.put("another/secret", "x", description="test")
        runtime.aws.client("secretsmanager").list_secrets()
        runtime.dynamodb.describe_endpoints()
        assert not guard.taken()
        with running("notifications"):
            replicate(runtime, key("e3"))
        assert {each.worker for each in guard.taken()} == {"notifications"}
    # The suite's own guard has seen it as well.
    assert {each.worker for each in GUARD.taken()} == {"notifications"}


def test_a_policy_names_the_environments_own_resources() -> None:
    place = place_of(test_settings("prod-"), account="123456789012", log_bucket="logs")
    resources = {each for one in role_policy("replication", place)["Statement"] for each in one["Resource"]}
    assert "arn:aws:dynamodb:us-east-1:123456789012:table/prod-demand-table" in resources


def test_the_policy_of_invites_follows_the_prefix_of_their_lists() -> None:
    settings = test_settings("prod-", invites={"prefix": "crm/lists/"})
    policy = role_policy("invites", place_of(settings, account="123456789012", log_bucket="logs"))
    (read,) = [each for each in policy["Statement"] if each["Action"] == ["s3:GetObject", "s3:PutObject"]]
    bucket = f"arn:aws:s3:::{settings.names.bucket}"
    assert read["Resource"] == [f"{bucket}/crm/lists/*", f"{bucket}/uploads/*"]


def test_every_worker_has_a_role() -> None:
    assert {worker.name for worker in WORKERS} == {name for workers in ROLES.values() for name in workers}


RUNTIME = (PROJECT_ROOT / "regworkers_core" / "runtime.py").read_text(encoding="utf-8")
COLLECTIONS = set(re.findall(r'(?:database\[|_collection\(\w+, )"(\w+)"', RUNTIME))


def test_every_role_with_a_user_has_rights_on_collections_that_there_are() -> None:
    # The agent and a run without a duty have no user; docs/security.md has the rights of `provision`. The web
    # application reads as `desk`.
    assert set(RIGHTS) == set(SERVICE_ACCOUNTS) - {"logs", "run", "provision"} | {"desk", "eligibility"}
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


BUCKET = "prod-regworkers-artefacts"
NEW, OVER = {"s3:if-none-match": "*"}, {"s3:if-match": "tag"}
PARTS = {"s3:ObjectCreationOperation": "false"}


def listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else value


def holds(condition: Mapping[str, Mapping[str, str]], context: Mapping[str, str]) -> bool:
    """All operators and keys hold; `Null` is true for a key that the request lacks."""
    return all(
        (wanted == "true") is (name not in context) if operator == "Null" else context.get(name) == wanted
        for operator, keys in condition.items()
        for name, wanted in keys.items()
    )


def refused(action: str, key: str, more: Mapping[str, str] | None = None) -> set[str]:
    """Sids of the statements that refuse a request."""
    context = {"aws:SecureTransport": "true", "s3:ObjectCreationOperation": "true", **(more or {})}
    arn = f"arn:aws:s3:::{BUCKET}/{key}"
    return {
        each["Sid"]
        for each in bucket_policy(BUCKET)["Statement"]
        if any(fnmatchcase(action, pattern) for pattern in listed(each["Action"]))
        and any(
            fnmatchcase(arn, pattern) for pattern in listed(each.get("Resource", each.get("NotResource")))
        )
        is ("Resource" in each)
        and holds(each.get("Condition", {}), context)
    }


@pytest.mark.parametrize(
    ("key", "condition", "by"),
    [
        ("draws/c1/phase-1/result.txt", {}, {"WriteFilesOfDrawsOnce"}),
        ("draws/c1/phase-1/result.txt", NEW, set()),
        ("draws/c1/phase-1/result.txt", OVER, {"ReplaceNoOtherFileOfADraw"}),
        ("draws/c1/phase-1/manifest.json", OVER, set()),
        ("draws/c1/phase-1/notice.json", OVER, set()),
        ("draws/c1/page/index.html", OVER, set()),
        ("draws/c1/page/proofs-0123456789abcdef.bin", OVER, {"ReplaceNoOtherFileOfADraw"}),
        ("draws/c1/phase-1/manifest.json", {}, {"WriteFilesOfDrawsOnce"}),
        ("draws/c1/phase-2/manifest.json", OVER, {"ReplaceNoOtherFileOfADraw"}),
        # The parts of a large file, whose last call has the condition.
        ("draws/c1/phase-1/entries.parquet", PARTS, set()),
        ("log/tile/0/000.p/1", NEW, set()),
        ("log/tile/0/000.p/1", {}, {"WriteFilesOfDrawsOnce"}),
        ("log/tile/entries/000.p/1", OVER, {"ReplaceNoOtherFileOfADraw"}),
        ("log/checkpoint", OVER, set()),
        ("log/checkpoint", {}, {"WriteFilesOfDrawsOnce"}),
        ("log/keys.json", OVER, set()),
        ("registrations/c1/checkpoint", NEW, set()),
        ("registrations/c1/checkpoint", OVER, set()),
        ("registrations/c1/bundles/0", NEW, set()),
        ("registrations/c1/bundles/0", {}, {"WriteFilesOfDrawsOnce"}),
        ("registrations/c1/bundles/0", OVER, {"ReplaceNoOtherFileOfADraw"}),
        ("registrations/c1/tile/0/000.p/1", OVER, {"ReplaceNoOtherFileOfADraw"}),
        ("archive/manifest.json", OVER, set()),
        ("dead-letters/2026/x", OVER, set()),
        ("reports/c1/report.html", {}, set()),
        ("uploads/x", {"aws:SecureTransport": "false"}, {"RefuseAccessWithoutTls"}),
    ],
)
def test_files_of_draws_are_written_once_but_for_the_two_that_a_repeated_commit_replaces(
    key: str, condition: Mapping[str, str], by: set[str]
) -> None:
    assert refused("s3:PutObject", key, condition) == by


def test_no_one_deletes_a_file_of_a_draw_or_a_version_of_it() -> None:
    for action in ("s3:DeleteObject", "s3:DeleteObjectVersion", "s3:BypassGovernanceRetention"):
        assert refused(action, "draws/c1/phase-1/result.txt") == {"KeepFilesOfDraws"}
        assert refused(action, "log/checkpoint") == {"KeepFilesOfDraws"}
        assert refused(action, "registrations/c1/bundles/0") == {"KeepFilesOfDraws"}
        assert refused(action, "uploads/x") == set()
