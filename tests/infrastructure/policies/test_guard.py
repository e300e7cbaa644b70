"""The guard over the suite's AWS calls goes red when a policy lacks what is needed."""

from __future__ import annotations

import pytest

from regworkers_core.analytics.publishing import DRAINS as PUBLISH
from regworkers_core.infrastructure.policies.platform import ROLES, WORKERS, role_policy
from regworkers_core.infrastructure.policies.statement import place_of
from regworkers_core.replication.reconcile.repair import replicate
from regworkers_core.runtime import Runtime
from tests.analytics.world import queue_events, removed
from tests.infrastructure.deploy.policies import Call
from tests.support.drains import run
from tests.support.entries import key, put
from tests.support.least_privilege import GUARD, Guard, Made, policies, running, watched
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
