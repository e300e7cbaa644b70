"""A table that exists: compared, corrected, and only checked where another team owns it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.infrastructure.compare import compare, discover
from regworkers_core.infrastructure.declared import ResourceKind, declared
from regworkers_core.infrastructure.desired import DesiredTable
from regworkers_core.infrastructure.found import FoundResources
from regworkers_core.infrastructure.provision import provision, provision_table
from regworkers_core.runtime import Runtime
from tests.adapters.fakes import FakeClient, client_error, dependency
from tests.support.runtimes import test_settings
from tests.support.terminal import regworkers
from tools.write_deploy_files import document

NAME = "prod-demand-table"
OURS = DesiredTable(NAME, "NEW_AND_OLD_IMAGES", "ttl")
THEIRS = DesiredTable(NAME, "NEW_AND_OLD_IMAGES", "ttl", external=True)
READS = {"describe_table", "describe_time_to_live", "describe_continuous_backups"}


def table(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "TableStatus": "ACTIVE",
        "KeySchema": [
            {"AttributeName": "PK", "KeyType": "HASH"},
            {"AttributeName": "SK", "KeyType": "RANGE"},
        ],
        "AttributeDefinitions": [
            {"AttributeName": "PK", "AttributeType": "S"},
            {"AttributeName": "SK", "AttributeType": "S"},
        ],
        "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        "WarmThroughput": {"WriteUnitsPerSecond": 4000, "ReadUnitsPerSecond": 12000, "Status": "ACTIVE"},
    }
    return {"Table": {**found, **changes}}


def serving(found: dict[str, Any] | Exception, *, ttl: str = "ttl", recovery: bool = True) -> FakeClient:
    def describe(**_: Any) -> Any:
        if isinstance(found, Exception):
            raise found
        return found

    live = {"TimeToLiveStatus": "ENABLED", "AttributeName": ttl} if ttl else {"TimeToLiveStatus": "DISABLED"}
    state = {"PointInTimeRecoveryStatus": "ENABLED" if recovery else "DISABLED"}
    return FakeClient(
        describe_table=describe,
        describe_time_to_live=lambda **_: {"TimeToLiveDescription": live},
        describe_continuous_backups=lambda **_: {
            "ContinuousBackupsDescription": {"PointInTimeRecoveryDescription": state}
        },
        update_table=lambda **_: {},
        update_time_to_live=lambda **_: {},
        update_continuous_backups=lambda **_: {},
    )


def provisioned(client: FakeClient, wanted: DesiredTable, *, change: bool) -> tuple[str, str, dict[str, Any]]:
    """Outcome, note, and what was written, by call."""
    guard = dependency("dynamodb", classify_aws("dynamodb"))
    runtime: Any = SimpleNamespace(dynamodb=client, dependency=lambda _name: guard)
    done = provision_table(cast(Runtime, runtime), wanted, change=change)
    return done.outcome.value, done.note, {name: given for name, given in client.calls if name not in READS}


def test_a_table_as_declared_is_not_touched() -> None:
    assert provisioned(serving(table()), OURS, change=True) == ("existed", "", {})


def test_what_differs_is_said_and_corrected_only_with_apply() -> None:
    found = table(StreamSpecification={})
    outcome, note, written = provisioned(serving(found, ttl="", recovery=False), OURS, change=False)
    assert (outcome, written) == ("differs", {})
    assert note == (
        "stream: declared NEW_AND_OLD_IMAGES, found off; ttl: declared ttl, found off; "
        "pointInTimeRecovery: declared on, found off"
    )
    outcome, _, written = provisioned(serving(found, ttl="", recovery=False), OURS, change=True)
    assert outcome == "changed"
    assert written.keys() == {"update_table", "update_time_to_live", "update_continuous_backups"}


@pytest.mark.parametrize(
    ("client", "said"),
    [
        (serving(table(StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"})), "lost"),
        (serving(table(), ttl="expires"), "ttl: declared ttl, found expires"),
        (
            serving(table(KeySchema=[{"AttributeName": "PK", "KeyType": "HASH"}])),
            "found PK HASH (S). They cannot be changed",
        ),
    ],
)
def test_what_cannot_be_corrected_in_place_is_blocked_and_explained(client: FakeClient, said: str) -> None:
    outcome, note, written = provisioned(client, OURS, change=True)
    assert (outcome, written) == ("blocked", {}) and said in note


def test_warm_throughput_is_raised_once_with_its_price_and_never_lowered() -> None:
    wanted = DesiredTable(NAME, "NEW_AND_OLD_IMAGES", "ttl", warm_write_units=40_000)
    outcome, note, _ = provisioned(serving(table()), wanted, change=False)
    assert outcome == "differs" and "found 4000 and 12000" in note and "costs 23.40 dollars once" in note
    outcome, _, written = provisioned(serving(table()), wanted, change=True)
    assert outcome == "changed"
    assert written["update_table"]["WarmThroughput"] == {
        "ReadUnitsPerSecond": 12_000,
        "WriteUnitsPerSecond": 40_000,
    }
    for warm in (
        {"WriteUnitsPerSecond": 50_000, "ReadUnitsPerSecond": 12_000, "Status": "ACTIVE"},
        # It is being raised, beside whatever else happens to the table.
        {"WriteUnitsPerSecond": 4000, "ReadUnitsPerSecond": 12_000, "Status": "UPDATING"},
        {},
        {"WriteUnitsPerSecond": 0, "ReadUnitsPerSecond": 0, "Status": "ACTIVE"},
    ):
        found = table(
            WarmThroughput=warm, TableStatus="UPDATING" if warm.get("Status") == "UPDATING" else "ACTIVE"
        )
        assert provisioned(serving(found), wanted, change=True) == ("existed", "", {})


def test_another_teams_table_is_never_changed_and_its_owner_gets_the_commands() -> None:
    wanted = DesiredTable(NAME, "NEW_AND_OLD_IMAGES", "ttl", external=True, warm_write_units=10_000)
    client = serving(table(StreamSpecification={}), ttl="", recovery=False)
    outcome, note, written = provisioned(client, wanted, change=True)
    assert (outcome, written) == ("blocked", {}) and note.startswith("external. stream: ")
    for command in (
        f"aws dynamodb update-table --table-name {NAME} --stream-specification StreamEnabled=true,"
        "StreamViewType=NEW_AND_OLD_IMAGES",
        f"aws dynamodb update-time-to-live --table-name {NAME} --time-to-live-specification Enabled=true,"
        "AttributeName=ttl",
        f"aws dynamodb update-continuous-backups --table-name {NAME} --point-in-time-recovery-specification "
        "PointInTimeRecoveryEnabled=true",
        f"aws dynamodb update-table --table-name {NAME} --warm-throughput ReadUnitsPerSecond=12000,"
        "WriteUnitsPerSecond=10000",
    ):
        assert command in note
    assert provisioned(serving(table()), THEIRS, change=True) == ("existed", "external", {})
    missing = serving(client_error("ResourceNotFoundException"))
    outcome, note, written = provisioned(missing, THEIRS, change=True)
    assert (outcome, written) == ("blocked", {}) and note.startswith("does not exist: its owner creates it")


# On servers


def test_provision_and_find_resources_say_external(runtime: Runtime) -> None:
    names = runtime.names
    runtime.dynamodb.update_continuous_backups(
        TableName=names.demand_table, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": False}
    )
    theirs = Runtime(test_settings(names.prefix, demand_table={"external": True}))
    answer = regworkers(
        theirs, "provision", "--apply", "--format", "json", REGWORKERS_DEMAND_TABLE__EXTERNAL="true"
    )
    (line,) = [each for each in answer.document if each["name"] == names.demand_table]
    assert answer.code == 1 and line["outcome"] == "blocked" and "update-continuous-backups" in line["note"]
    assert {each["outcome"] for each in answer.document if each["name"] != names.demand_table} == {"existed"}
    (line,) = [each for each in discover(theirs).lines if each.name == names.demand_table]
    assert line.external and line.differences == ("pointInTimeRecovery: declared True, found False",)
    list(provision(runtime))
    assert not discover(theirs).differing


def test_terraform_leaves_an_external_table_alone() -> None:
    settings = test_settings("any-", dict.fromkeys(("aws", "mongo", "redis", "kafka"), "http://127.0.0.1:9"))
    section = settings.demand_table.model_copy(update={"external": True})
    theirs = settings.model_copy(update={"demand_table": section})
    assert document(settings)["tables"].keys() == {"demand-table", "worker-leases"}
    assert document(theirs)["tables"].keys() == {"worker-leases"}
    wanted = declared(theirs)
    found = FoundResources({(each.kind, each.name): each.facts for each in wanted}, {})
    key = (ResourceKind.TABLE, theirs.names.demand_table)
    state = {(each.kind, each.name): each.facts for each in wanted}
    (line,) = compare("prod", wanted, found, state).differing
    assert line.name == key[1] and "terraform state rm" in line.differences[0]
    del state[key]
    assert not compare("prod", wanted, found, state).differing


def test_a_table_that_another_run_creates_at_the_same_time_or_that_is_listed_late_is_created(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("regworkers_core.infrastructure.provision._POLL_SECONDS", 0)
    missing = client_error("ResourceNotFoundException")
    client = serving(missing)
    client._answers["describe_table"] = [missing, missing, table()]
    client._answers["create_table"] = [client_error("ResourceInUseException")]
    outcome, _, written = provisioned(client, OURS, change=False)
    assert outcome == "created" and written["create_table"]["TableName"] == NAME
