"""Terraform's module against what the settings declare: names, keys, stream, retention, redrive, policies, alarms."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from regworkers_core.domain.alert import Severity
from regworkers_core.infrastructure.dashboards.alarms import alarms
from regworkers_core.infrastructure.deploy_files import ENVIRONMENTS, write_archive, write_files
from regworkers_core.infrastructure.discovery.compare import Discovery, compare
from regworkers_core.infrastructure.discovery.declared import ResourceKind, declared
from regworkers_core.infrastructure.discovery.found import FoundResources
from regworkers_core.infrastructure.discovery.terraform import resources
from regworkers_core.settings import PROJECT_ROOT, Environment, settings_of
from tests.support.hcl import evaluate

MODULE = PROJECT_ROOT / "deploy" / "terraform"
# Of the provider's own documentation, as far as the module uses them: a misspelt argument is not silently ignored.
ARGUMENTS = {
    "aws_dynamodb_table": "name billing_mode hash_key range_key stream_enabled stream_view_type attribute ttl"
    " point_in_time_recovery deletion_protection_enabled",
    "aws_sqs_queue": "name message_retention_seconds visibility_timeout_seconds redrive_policy",
    "aws_s3_bucket": "bucket",
    "aws_s3_bucket_versioning": "bucket versioning_configuration",
    "aws_s3_bucket_public_access_block": "bucket block_public_acls block_public_policy ignore_public_acls"
    " restrict_public_buckets",
    "aws_s3_bucket_lifecycle_configuration": "bucket rule",
    "aws_cloudwatch_log_group": "name retention_in_days",
    "aws_cloudwatch_dashboard": "dashboard_name dashboard_body",
    "aws_cloudwatch_metric_alarm": "alarm_name alarm_description namespace metric_name dimensions statistic period"
    " evaluation_periods threshold comparison_operator treat_missing_data alarm_actions ok_actions",
    "aws_cloudwatch_query_definition": "name query_string log_group_names",
    "aws_iam_policy": "name policy",
    "aws_iam_role": "name assume_role_policy",
    "aws_iam_role_policy_attachment": "role policy_arn",
}


def values(environment: str, module: Path) -> dict[str, Any]:
    return evaluate(
        module,
        {
            "environment": environment,
            "account": "123456789012",
            "log_bucket": "logs",
            "critical_alarm_topics": ["arn:on-call"],
            "warning_alarm_topics": ["arn:team"],
            "oidc_provider": "oidc.example.com/id/1",
            "kubernetes_namespace": "regworkers",
        },
    )


def compared(environment: Environment, module: Path) -> Discovery:
    """As if AWS had just what is declared."""
    wanted = declared(settings_of(environment))
    found = FoundResources({(each.kind, each.name): each.facts for each in wanted}, {})
    return compare(environment, wanted, found, resources(values(environment, module), str(module)))


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the module beside files that were generated just now."""
    folder = tmp_path_factory.mktemp("deploy")
    list(write_files(folder / "generated"))
    return Path(shutil.copytree(MODULE, folder / "terraform"))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_module_makes_what_the_settings_declare_and_nothing_else(
    module: Path, environment: Environment
) -> None:
    found = compared(environment, module)
    assert [(line.name, line.differences) for line in found.differing] == []
    assert {line.kind for line in found.lines} == set(ResourceKind)


@pytest.mark.parametrize(
    ("file", "before", "after", "difference"),
    [
        ("main.tf", "each.value.stream_view\n", '"KEYS_ONLY"\n', "stream: "),
        ("main.tf", 'range_key                   = "SK"', 'range_key                   = "S"', "keys: "),
        ("main.tf", "      enabled        = true", "      enabled        = false", "ttl: "),
        ("main.tf", "each.value.point_in_time_recovery", "false", "pointInTimeRecovery: "),
        ("main.tf", "local.generated.log_group.retention_days", "7", "retentionDays: "),
        ("queues.tf", "each.value.retention_seconds", "7", "retentionSeconds: "),
        ("queues.tf", "each.value.max_receives", "3", "maxReceives: "),
        ("queues.tf", "[each.value.dead_letter_queue]", '["analytics-queue-dlq"]', "deadLetterQueue: "),
        ("bucket.tf", "noncurrent_version_expiration.value", "3", "lifecycle of archive/: "),
        ("bucket.tf", "= expiration.value", "= 9", "lifecycle of uploads/: "),
        ("bucket.tf", "block_public_acls       = true", "block_public_acls       = false", "publicAccess: "),
        ("policies.tf", '"PREFIX", local.prefix', '"PREFIX", "x"', "statement "),
        ("policies.tf", "regworkers-${each.key}", "workers-${each.key}", "not in Terraform's state"),
        ("watching.tf", "each.value.threshold", "1234", "holds: "),
    ],
)
def test_a_change_of_the_module_alone_is_a_difference(
    module: Path, tmp_path: Path, file: str, before: str, after: str, difference: str
) -> None:
    changed = Path(shutil.copytree(module, tmp_path / "terraform"))
    (tmp_path / "generated").symlink_to(module.parent / "generated")
    text = (changed / file).read_text()
    assert before in text
    (changed / file).write_text(text.replace(before, after, 1))
    found = [text for line in compared("prod", changed).differing for text in line.differences]
    assert any(text.startswith(difference) for text in found), found


def test_every_argument_is_one_that_the_provider_knows(module: Path) -> None:
    for resource in values("prod", module)["root_module"]["resources"]:
        known = set(ARGUMENTS[resource["type"]].split())
        assert set(resource["values"]) <= known, resource["address"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_alarm_notifies_the_topics_of_its_severity(module: Path, environment: Environment) -> None:
    wanted = {each.name: each.severity for each in alarms(settings_of(environment))}
    made = {
        resource["values"]["alarm_name"]: resource["values"]
        for resource in values(environment, module)["root_module"]["resources"]
        if resource["type"] == "aws_cloudwatch_metric_alarm"
    }
    topics = {Severity.CRITICAL: ["arn:on-call"], Severity.WARNING: ["arn:team"]}
    assert {name: alarm["alarm_actions"] for name, alarm in made.items()} == {
        name: topics[severity] for name, severity in wanted.items()
    }
    assert all(alarm["ok_actions"] == alarm["alarm_actions"] for alarm in made.values())
    assert set(wanted.values()) == set(Severity)


def test_every_role_has_fewer_policies_than_aws_attaches_at_most(module: Path) -> None:
    hanging = [
        resource["values"]["role"]
        for resource in values("prod", module)["root_module"]["resources"]
        if resource["type"] == "aws_iam_role_policy_attachment"
    ]
    assert max(hanging.count(role) for role in hanging) <= 20


def test_the_release_archive_has_what_terraform_reads(tmp_path: Path) -> None:
    list(write_files())
    with tarfile.open(write_archive(tmp_path)) as archive:
        names = set(archive.getnames())
    assert {"deploy/generated/prod.json", "deploy/terraform/main.tf", "configs/prod.config.yml"} <= names
