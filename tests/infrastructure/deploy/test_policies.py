"""Least privilege: what the flows do on AWS and what the policies allow, compared in both directions."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from regworkers_core.domain.campaign import CampaignStatus, LoggedTerms
from regworkers_core.domain.events import ProducerRole, Signature
from regworkers_core.infrastructure.provision import provision
from regworkers_core.operations.health.sources import put_age_metrics, read_analytics_queue, read_lines
from regworkers_core.replication.backfill import Backfill, backfill_status, start_backfill
from regworkers_core.replication.reconcile.reconciliation import Comparing, reconcile
from regworkers_core.replication.reconcile.segments import Segment, Segments
from regworkers_core.runtime import Runtime
from regworkers_core.selection.registrations.tree import RegistrationLog
from regworkers_core.settings import PROJECT_ROOT
from regworkers_dagster import analytics, replication
from regworkers_dagster.operations.first_checks import first_checks_tick
from regworkers_dagster.operations.health import alerts_tick
from regworkers_dagster.selection import automation as selection
from regworkers_dagster.selection import campaigns
from tests.analytics.world import queue_events, removed
from tests.dagster.support import use
from tests.infrastructure.deploy.policies import (
    OF_DAGSTER,
    ROLES,
    Recorder,
    actions,
    actions_of_methods,
    compare,
    methods_called,
    needs,
    policy,
)
from tests.selection.draw.world import close_campaign, drawn
from tests.support.campaigns import advance_to, create
from tests.support.drains import replicate_all, run
from tests.support.entries import key, put
from tests.support.runtimes import new_runtime, remove_namespace, test_settings

pytestmark = pytest.mark.slow

# As AWS's own reference of actions has it.
KNOW_NO_RESOURCES = {
    "cloudwatch:GetMetricData",
    "cloudwatch:ListDashboards",
    "cloudwatch:ListMetrics",
    "dynamodb:ListTables",
    "iam:ListPolicies",
    "iam:ListRoles",
    "lambda:ListFunctions",
    "logs:DescribeQueryDefinitions",
    "logs:GetQueryResults",
    "logs:PutQueryDefinition",
    "s3:ListAllMyBuckets",
    "secretsmanager:ListSecrets",
    "sqs:ListQueues",
}


@pytest.fixture
def stocked() -> Iterator[Runtime]:
    """Some entries in the table, and metrics on."""
    made = new_runtime(observability={"cloudwatch_enabled": True})
    for number in range(3):
        put(made, key(f"e{number}"), updatedAt="2020-01-01T00:00:00.000Z")
    yield made
    remove_namespace(made)


def test_an_enqueue_drain_needs_what_its_policy_allows(stocked: Runtime) -> None:
    put(stocked, key("refused", "a:b"))
    with needs("enqueue", stocked) as mine:
        report = run(mine, "enqueue")
        assert report.counts["dead_lettered"] == 1


def test_a_save_drain_needs_what_its_policy_allows(stocked: Runtime) -> None:
    put(stocked, key("bad"), email=None)
    run(stocked, "enqueue")
    with needs("save", stocked) as mine:
        report = run(mine, "save")
        assert report.counts["dead_lettered"] == 1


def test_a_publish_drain_needs_what_its_policy_allows(stocked: Runtime) -> None:
    queue_events(stocked, [removed(1), {"id": "not an event"}])
    with needs("publish", stocked) as runtime:
        assert run(runtime, "publish").counts["dead_lettered"] == 1
        for role in ProducerRole:
            runtime.producer_keys.accepted(Signature(role, "unknown", ""))
        queue_events(stocked, [removed(2)])
        # The asset reads the queue once more when the run ends.
        put_age_metrics(runtime, read_analytics_queue(runtime))


def test_reconcile_and_backfill_need_what_their_policy_allows(stocked: Runtime) -> None:
    replicate_all(stocked)
    stocked.database["entries"].delete_one({"_id": key("e1").document_id})
    with needs("reconcile", stocked) as runtime:
        assert reconcile(runtime, Comparing(repair=True)).repair is not None
        reconcile(runtime, Comparing("summer"))
        Segments(stocked.leases, lease_seconds=30).add(Segment("gone"))
        reconcile(runtime, Comparing(cycle=True))
        for campaign in (None, "summer"):
            start_backfill(runtime, Backfill(campaign))
            backfill_status(runtime, campaign)


def test_the_sensors_need_what_their_policy_allows(stocked: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    close_campaign(stocked)
    drawn(stocked)
    create(stocked, "due", autoDraw=True, closesAt="2026-02-01T00:00:00.000Z", registration={"log": "on"})
    advance_to(stocked, "due", CampaignStatus.OPEN)
    stocked.campaigns.set_opened("due", LoggedTerms("a" * 64, 0))
    tree = RegistrationLog.open(stocked, "due")
    tree.advance(tree.decide([b"an entry"]))
    tree.log_now()
    use(monkeypatch, stocked)
    with needs("sensors", stocked):
        ticks = (replication.enqueue_tick, replication.save_tick, replication.observe_tick)
        ticks += (campaigns.campaigns_tick, campaigns.markets_tick)
        ticks += (selection.process_tick, selection.notify_tick, selection.register_tick)
        ticks += (selection.observe_tick,)
        ticks += (analytics.publish_tick, analytics.observe_tick, alerts_tick, first_checks_tick)
        with dg.DagsterInstance.ephemeral() as instance:
            for tick in ticks:
                tick(dg.build_sensor_context(instance=instance, sensor_name="any"))
        read_lines(Runtime(stocked.settings.model_copy(update={"environment": "qa"})))


def test_provisioning_needs_what_its_policy_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"prefix": f"t{uuid.uuid4().hex[:8]}-"}
    recorder = Recorder(monkeypatch, settings["prefix"])
    runtime = Runtime(test_settings(**settings))
    _table_without_stream(runtime)
    list(provision(runtime))
    # Another visibility time-out is corrected.
    list(provision(Runtime(test_settings(**settings, save={"visibility_seconds": 7}))))
    needed = set(recorder.calls)
    remove_namespace(runtime)
    recorder.calls = needed
    compare("provision", recorder)


def _table_without_stream(runtime: Runtime) -> None:
    runtime.dynamodb.create_table(
        TableName=runtime.names.demand_table,
        KeySchema=[{"AttributeName": "PK", "KeyType": "HASH"}, {"AttributeName": "SK", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "PK", "AttributeType": "S"},
            {"AttributeName": "SK", "AttributeType": "S"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )


def test_every_operation_that_the_sources_name_is_allowed_to_someone() -> None:
    core = PROJECT_ROOT / "regworkers_core"
    sources = [*(core / "adapters").rglob("*.py"), *(core / "infrastructure").glob("provision*.py")]
    needed = actions_of_methods(methods_called(*sources))
    assert {"dynamodb:Scan", "dynamodb:PartiQLUpdate", "sqs:ReceiveMessage", "logs:CreateLogGroup"} <= needed
    assert needed <= set().union(*(actions(role) for role in ROLES))


@pytest.mark.parametrize("role", [*ROLES, *OF_DAGSTER])
def test_a_policy_names_its_actions_and_resources_one_by_one(role: str) -> None:
    for statement in policy(role):
        assert statement["Effect"] == "Allow"
        assert not [action for action in statement["Action"] if "*" in action]
        if statement["Action"] == ["cloudwatch:GetMetricStatistics"]:
            # It knows neither resources nor namespaces.
            assert statement["Resource"] == ["*"]
        elif "*" in statement["Resource"]:
            # PutMetricData has no resource-level permissions; the namespace restricts it.
            if statement["Action"] == ["cloudwatch:PutMetricData"]:
                assert statement["Condition"]["StringEquals"]["cloudwatch:namespace"] == "regworkers"
            else:
                assert set(statement["Action"]) <= KNOW_NO_RESOURCES


def test_only_provisioning_may_create_or_change_tables_and_queues() -> None:
    changes = {
        action
        for action in actions("provision")
        # Secrets are made by those that use them, too; which ones is a matter of their names.
        if not action.split(":")[1].startswith(("Describe", "Get", "List", "CreateSecret"))
    }
    assert {"dynamodb:CreateTable", "dynamodb:UpdateTable", "sqs:CreateQueue"} <= changes
    for role in set(ROLES) - {"provision"}:
        assert not actions(role) & changes


def test_the_sensors_change_nothing_but_metrics_and_rows_beside_the_leases() -> None:
    reads = ("BatchGetItem", "Describe", "Filter", "Get", "List", "Query", "Scan")
    changes = {action for action in actions("sensors") if not action.split(":")[1].startswith(reads)}
    assert changes == {"cloudwatch:PutMetricData", "dynamodb:DeleteItem", "dynamodb:PutItem"}


@pytest.mark.parametrize(
    ("role", "sid", "kinds"),
    [
        ("save", "ShowLifeMarkMessagesAndKeepTheFuse", ["DRAIN#*", "FUSE#*", "MARK#*"]),
        ("publish", "ShowLifeMarkMessagesAndKeepTheFuse", ["DRAIN#*", "FUSE#*", "MARK#*"]),
        ("sensors", "RemoveTheHeartbeatsOfDeadDrains", ["DRAIN#*"]),
        ("dead-letters", "PauseDrainsAndRemoveFuses", ["FUSE#*"]),
    ],
)
def test_who_holds_no_leases_changes_rows_of_its_own_kinds_alone(
    role: str, sid: str, kinds: list[str]
) -> None:
    (statement,) = (each for each in policy(role) if each["Sid"] == sid)
    assert statement["Condition"] == {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": kinds}}


def test_only_the_check_may_put_an_entry_and_only_an_erasure_may_delete_one() -> None:
    writes = {"dynamodb:PutItem", "dynamodb:DeleteItem", "dynamodb:UpdateItem"}
    may = {"eligibility": {"dynamodb:PutItem"}, "erasure": {"dynamodb:DeleteItem"}}
    for role in ROLES:
        for statement in policy(role):
            found = (writes - may.get(role, set())) & set(statement["Action"])
            if found:
                assert all(resource.endswith("worker-leases") for resource in statement["Resource"])
