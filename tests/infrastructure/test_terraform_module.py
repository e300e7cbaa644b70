"""Terraform's module against what the settings declare: names, keys, stream, retention, redrive, policies, alarms."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hcl2
import pytest

from regworkers_core.domain.snapshot import Severity
from regworkers_core.infrastructure.alarms import alarms
from regworkers_core.infrastructure.compare import Discovery, compare
from regworkers_core.infrastructure.declared import ResourceKind, declared
from regworkers_core.infrastructure.found import FoundResources
from regworkers_core.infrastructure.policies.platform import ROLES, SERVICE_ACCOUNTS, WORKERS, role_policy
from regworkers_core.infrastructure.policies.statement import PLACEHOLDERS
from regworkers_core.infrastructure.terraform import resources
from regworkers_core.settings import PROJECT_ROOT, Environment, settings_of
from tests.infrastructure.deploy.policies import statements_of
from tests.support.hcl import evaluate
from tools.write_deploy_files import ENVIRONMENTS, write_archive, write_files

MODULE = PROJECT_ROOT / "deploy" / "terraform"
# What parliament finds in our policies, by resource, kind and a part of its text, and why it remains.
FINDINGS = {
    ("aws_iam_role.", "MALFORMED", "neither Resource nor NotResource"): "a trust policy is of its role alone",
    ("aws_iam_role.", "UNKNOWN_FEDERATION_SOURCE", "oidc-provider/"): "parliament knows none of Kubernetes",
    ("aws_kms_key.", "RESOURCE_STAR", "kms:"): "the policy of a key is of this key alone",
    (
        "aws_kms_key.",
        "UNKNOWN_CONDITION_FOR_ACTION",
        "kms:DescribeKey",
    ): "as AWS's guide of log groups has it",
    ("aws_kms_key.", "MISMATCHED_TYPE", "ArnEquals"): "this part of the encryption context is an ARN",
    (
        "aws_iam_policy.",
        "RESOURCE_MISMATCH",
        "logs:DescribeLogGroups",
    ): "its list is older than AWS's, which has groups",
    ("aws_iam_policy.", "RESOURCE_STAR", "logs:GetQueryResults"): "the id of a query is no resource",
    (
        "aws_iam_policy.",
        "RESOURCE_POLICY_PRIVILEGE_ESCALATION",
        "allow s3:Put",
    ): "provisioning sets up the bucket",
}


def values(environment: str, module: Path, **variables: Any) -> dict[str, Any]:
    return evaluate(
        module,
        {
            "manage_log_bucket": True,
            "own_key": False,
            "trail_bucket": "trail",
            "eligibility_package": "eligibility.zip",
            "eligibility_environment": {"REGWORKERS_REDIS__URL": "rediss://cache.example.com"},
            "eligibility_subnets": ["subnet-1"],
            "eligibility_security_groups": ["sg-1"],
            "eligibility_memory": 1769,
            "eligibility_concurrency": 100,
            "eligibility_provisioned": 5,
            "environment": environment,
            "account": "123456789012",
            "log_bucket": "logs",
            "critical_alarm_topics": ["arn:on-call"],
            "warning_alarm_topics": ["arn:team"],
            "oidc_provider": "oidc.example.com/id/1",
            "kubernetes_namespace": "regworkers",
            **variables,
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
        ("bucket.tf", "jsonencode(local.generated.bucket_policy)", "jsonencode({})", "statement Keep"),
        ("bucket.tf", 'object_lock_enabled = "Enabled"', "object_lock_enabled = null", "objectLock: "),
        ("main.tf", "each.value.deletion_protection", "false", "deletionProtection: "),
        ("queues.tf", "each.value.max_message_bytes", "1024", "maxMessageBytes: "),
        ("eligibility.tf", "local.function.timeout_seconds", "3", "timeoutSeconds: "),
        ("eligibility.tf", "aws_cloudwatch_log_group.workers.name", '"/aws/lambda/x"', "logGroup: "),
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


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_roles_and_policies_keep_within_the_default_quotas(module: Path, environment: Environment) -> None:
    found = values(environment, module)["root_module"]["resources"]
    hanging = [
        resource["values"]["role"]
        for resource in found
        if resource["type"] == "aws_iam_role_policy_attachment"
    ]
    assert max(hanging.count(role) for role in hanging) <= 10
    prefix = settings_of(environment).names.prefix
    assert {hanging.count(f"{prefix}regworkers-{role}") for role in SERVICE_ACCOUNTS} == {1}
    # IAM does not count white space. "IAM and AWS STS quotas" in its documentation.
    sizes = {
        resource["values"]["name"]: len(re.sub(r"\s", "", resource["values"]["policy"]))
        for resource in found
        if resource["type"] == "aws_iam_policy"
    }
    assert len(sizes) == len(ROLES)
    assert max(sizes.values()) <= 6144, sizes


def documents(module: Path) -> dict[str, str]:
    """Every policy that the module makes, by its address."""
    found = values("prod", module, own_key=True)["root_module"]["resources"]
    texts = {
        each["address"]: each["values"].get("policy") or each["values"].get("assume_role_policy")
        for each in found
    }
    return {
        address: text.replace("REGION", "us-east-1").replace("ACCOUNT", "123456789012")
        for address, text in texts.items()
        if text
    }


def audited(policies: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], set[Any]]:
    """What parliament finds and `FINDINGS` does not have, and what only that has."""
    # Of setuptools, which has it no more. Parliament asks it for the place of two files.
    place = SimpleNamespace(resource_filename=lambda package, name: str(files(package) / name))
    monkeypatch.setitem(sys.modules, "pkg_resources", place)
    parliament = importlib.import_module("parliament")
    unknown, left = [], set(FINDINGS)
    for address, policy in policies.items():
        for found in parliament.analyze_policy_string(policy).findings:
            named = [
                each
                for each in FINDINGS
                if address.startswith(each[0]) and found.issue == each[1] and each[2] in str(found.detail)
            ]
            left -= set(named)
            unknown += [] if named else [f"{address}: {found.issue} {found.detail}"]
    return unknown, left


def test_what_an_audit_finds_in_the_policies_is_known_with_its_reason(
    module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = documents(module)
    assert len(policies) > 40
    assert audited(policies, monkeypatch) == ([], set())
    misspelt = {name: text.replace("sqs:SendMessage", "sqs:SendMesage") for name, text in policies.items()}
    assert any("sqs:sendmesage" in each.lower() for each in audited(misspelt, monkeypatch)[0])


def test_a_role_may_do_what_its_workers_may_and_nothing_else() -> None:
    def allowed(statements: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
        return {
            (action, resource, str(each.get("Condition")))
            for each in statements
            for action in each["Action"]
            for resource in each["Resource"]
        }

    for role, workers in ROLES.items():
        of_workers = [allowed(statements_of(worker)) for worker in WORKERS if worker.name in workers]
        assert len(of_workers) == len(workers)
        assert allowed(role_policy(role, PLACEHOLDERS)["Statement"]) == set().union(*of_workers)


def test_the_release_archive_has_what_terraform_reads(tmp_path: Path) -> None:
    list(write_files())
    with tarfile.open(write_archive(tmp_path)) as archive:
        names = set(archive.getnames())
    assert {"deploy/generated/prod.json", "deploy/terraform/main.tf", "configs/prod.config.yml"} <= names


def test_with_a_key_of_the_account_everything_that_can_is_encrypted_with_it(module: Path) -> None:
    found = values("prod", module, own_key=True)["root_module"]["resources"]
    key = "arn:aws:kms:REGION:ACCOUNT:key/1"
    with_key = {
        "aws_dynamodb_table": lambda each: each["server_side_encryption"][0]["kms_key_arn"],
        "aws_sqs_queue": lambda each: each["kms_master_key_id"],
        "aws_cloudwatch_log_group": lambda each: each["kms_key_id"],
        "aws_lambda_function": lambda each: each["kms_key_arn"],
    }
    for kind, place in with_key.items():
        assert {place(each["values"]) for each in found if each["type"] == kind} == {key}
    roles = {each["values"]["name"] for each in found if each["type"] == "aws_iam_role"}
    may = [each["values"] for each in found if each["type"] == "aws_iam_role_policy"]
    assert {each["role"] for each in may} == roles and all(key in each["policy"] for each in may)
    # What DynamoDB, SQS and S3 do with the key in the caller's name.
    for each in may:
        (statement,) = json.loads(each["policy"])["Statement"]
        assert {action.removeprefix("kms:") for action in statement["Action"]} == {
            "Decrypt",
            "DescribeKey",
            "Encrypt",
            "GenerateDataKey*",
            "ReEncrypt*",
        }
    without = values("prod", module)["root_module"]["resources"]
    assert not [each for each in without if each["type"] in ("aws_kms_key", "aws_iam_role_policy")]
    assert all(
        each["values"]["sqs_managed_sse_enabled"] for each in without if each["type"] == "aws_sqs_queue"
    )


def test_without_a_package_a_trail_and_a_log_bucket_of_its_own_the_module_makes_none(module: Path) -> None:
    off = {"eligibility_package": "", "trail_bucket": "", "manage_log_bucket": False}
    kinds = [
        (each["type"], each["address"]) for each in values("prod", module, **off)["root_module"]["resources"]
    ]
    assert not [address for kind, address in kinds if "lambda" in kind or "cloudtrail" in kind]
    assert not [address for _, address in kinds if "compute_logs" in address or ".eligibility" in address]


def test_versions_of_terraform_and_its_provider_are_pinned_and_the_state_is_locked() -> None:
    (terraform,) = hcl2.loads((MODULE / "versions.tf").read_text())["terraform"]
    assert terraform["required_version"] == '">= 1.11"'
    (providers,) = terraform["required_providers"]
    # One major version: the last figure may grow, the first may not.
    assert re.fullmatch(r'"~> \d+\.\d+"', providers["aws"]["version"])
    (backend,) = terraform["backend"]
    assert backend['"s3"']["use_lockfile"] is True


def test_the_module_is_formatted_as_terraform_formats_it() -> None:
    terraform = shutil.which("terraform")
    if terraform is None:
        pytest.skip("needs terraform")
    done = subprocess.run([terraform, "fmt", "-check", "-diff", MODULE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
