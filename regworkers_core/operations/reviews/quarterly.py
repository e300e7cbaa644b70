"""The quarterly review: least privilege, access of other accounts, dependencies, Terraform, and a recovery drill."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import orjson

from regworkers_core import infrastructure
from regworkers_core.adapters.aws.answers import AwsRefusal, all_pages
from regworkers_core.domain.drill import DrillResult
from regworkers_core.infrastructure.desired import desired
from regworkers_core.infrastructure.policies.platform import ROLES, role_policy
from regworkers_core.infrastructure.policies.statement import PLACEHOLDERS
from regworkers_core.operation import Remark, Report, Table
from regworkers_core.operations.dependencies import DependencyReport
from regworkers_core.operations.reviews.sections import SectionReader, section_report
from regworkers_core.reporting.figures import bars
from regworkers_core.runtime import Runtime

# Where no period is named.
DAYS = 91
# Installed with the package: deploy/terraform/versions.tf.
PINS = Path(infrastructure.__file__).with_name("versions.tf")
_REGISTRY = "https://registry.terraform.io/v1/providers/hashicorp/aws"
# What AWS says where a bucket or a key has no policy.
_NO_POLICY = ("NoSuchBucketPolicy", "NotFoundException")
Statement = Mapping[str, Any]


def parts(
    locked: Callable[[], DependencyReport],
    foreign: Callable[[], Sequence[ForeignGrant]],
    provider: Callable[[], str | None],
    drill: Callable[[], DrillResult] | None,
) -> Iterator[SectionReader]:
    """The sections. With `drill` None no drill is made, and the report says so."""
    yield SectionReader("privileges", "Least privilege", lambda: privileges(declared_policies()))
    yield SectionReader("foreign", "Access of other accounts", lambda: foreign_access(foreign()))
    yield SectionReader("terraform", "Terraform", lambda: terraform(PINS.read_text(), provider()))
    yield SectionReader("dependencies", "Dependencies", lambda: dependencies(locked()))
    yield SectionReader("recovery", "Recovery drill", lambda: recovery(None if drill is None else drill()))


def declared_policies() -> dict[str, Mapping[str, Any]]:
    """Documents by role, with placeholders. `regworkers aws find-resources` compares them with AWS."""
    return {role: role_policy(role, PLACEHOLDERS) for role in ROLES}


def privileges(policies: Mapping[str, Mapping[str, Any]]) -> Report:
    """The actions and resources that each policy allows."""
    remarks: list[Remark] = []
    rows: list[tuple[Any, ...]] = []
    for name, document in policies.items():
        statements: Sequence[Statement] = document["Statement"]
        actions = {action for each in statements for action in _values(each.get("Action"))}
        unbounded = [
            each for each in statements if "*" in _values(each.get("Resource")) and not each.get("Condition")
        ]
        everywhere = sorted({action for each in unbounded for action in _values(each.get("Action"))})
        changing = sum(not _only_reads(action) for action in actions)
        deleting = sum("Delete" in action for action in actions)
        on_all, workers = ", ".join(everywhere) or None, ", ".join(ROLES.get(name, ()))
        rows.append((name, len(actions), changing, deleting, on_all, workers))
        remarks += _of_policy(name, actions, everywhere)
        if others := _other_accounts(statements):
            remarks.append(Remark("finding", f"{name} reaches other accounts: {', '.join(others)}"))
    return section_report(
        f"{len(rows)} policies.",
        remarks,
        (
            Table(
                "What each allows",
                ("role", "actions", "changing", "deleting", "on all resources", "workers"),
                rows,
            ),
        ),
        {},
        {str(row[0]): {"actions": row[1], "changing": row[2]} for row in rows},
    )


def _of_policy(name: str, actions: set[str], everywhere: Sequence[str]) -> Iterator[Remark]:
    if wild := sorted(action for action in actions if "*" in action):
        yield Remark("finding", f"{name} allows {', '.join(wild)}: list the actions")
    if changing := [action for action in everywhere if not _only_reads(action)]:
        yield Remark(
            "warning",
            f"{name} allows {', '.join(changing)} on all resources: limit them if the action supports it",
        )


def _other_accounts(statements: Sequence[Statement]) -> list[str]:
    """The accounts in ARNs that are not ours. Those of buckets name none."""
    arns = [arn for each in statements for arn in _values(each.get("Resource")) if arn.startswith("arn:")]
    return sorted(
        {account for arn in arns if (account := arn.split(":")[4]) not in ("", PLACEHOLDERS.account)}
    )


def _only_reads(action: str) -> bool:
    return action.partition(":")[2].startswith(
        ("Get", "List", "Describe", "BatchGet", "Query", "Scan", "Filter")
    )


def _values(value: Any) -> list[Any]:
    """The values of a policy, where a list of one may be its value."""
    return [] if value is None else value if isinstance(value, list) else [value]


@dataclass(frozen=True, slots=True)
class ForeignGrant:
    """What a policy allows to a principal outside of our account."""

    # What it allows access to.
    resource: str
    # `*` is everyone.
    principal: str
    # What it allows.
    actions: tuple[str, ...]
    # The statement has a condition.
    limited: bool


def foreign_grants(runtime: Runtime) -> list[ForeignGrant]:
    """Raises TransientFailure, and UsageError where AWS refuses to show a policy."""
    found: list[ForeignGrant] = []
    account = ""
    for resource, arn, policy in _policies(runtime):
        # A queue's ARN has our account: asking for it needs no right of its own.
        account = account or arn.split(":")[4]
        found += grants(resource, policy, account)
    return found


def grants(resource: str, policy: Mapping[str, Any], account: str) -> Iterator[ForeignGrant]:
    """The statements of one policy that allow something to a principal of another account. AWS's own services, and
    identity providers such as the cluster's, are none.
    """
    for statement in _values(policy.get("Statement")):
        if statement.get("Effect") != "Allow":
            continue
        principal = statement.get("Principal", {})
        named = _values(principal.get("AWS")) if isinstance(principal, Mapping) else [principal]
        actions = tuple(map(str, _values(statement.get("Action", statement.get("NotAction")))))
        for each in map(str, named):
            if account not in (each, *each.split(":")[4:5]):
                yield ForeignGrant(resource, each, actions, bool(statement.get("Condition")))


def _policies(runtime: Runtime) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    wanted, prefix = desired(runtime.settings), runtime.names.prefix

    def call(service: str, operation: str, **arguments: Any) -> Any:
        return runtime.dependency(service).call(getattr(runtime.aws.client(service), operation), **arguments)

    for queue in wanted.queues:
        url = call("sqs", "get_queue_url", QueueName=queue.name)["QueueUrl"]
        found = call("sqs", "get_queue_attributes", QueueUrl=url, AttributeNames=["All"])["Attributes"]
        yield queue.name, found["QueueArn"], orjson.loads(found.get("Policy") or "{}")
    try:
        text = call("s3", "get_bucket_policy", Bucket=wanted.bucket.name)["Policy"]
        yield wanted.bucket.name, "", orjson.loads(text)
    except AwsRefusal as error:
        if error.code not in _NO_POLICY:
            raise
    try:
        key = call("kms", "describe_key", KeyId=f"alias/{prefix}regworkers")["KeyMetadata"]["KeyId"]
        text = call("kms", "get_key_policy", KeyId=key, PolicyName="default")["Policy"]
        yield f"key {key}", "", orjson.loads(text)
    except AwsRefusal as error:
        # Services encrypt with keys of their own then.
        if error.code not in _NO_POLICY:
            raise
    roles = all_pages(lambda **page: call("iam", "list_roles", **page), "Roles", ("Marker", "Marker"))
    for role in roles:
        if role["RoleName"].startswith(f"{prefix}regworkers-"):
            yield f"role {role['RoleName']}", role["Arn"], role["AssumeRolePolicyDocument"]


def foreign_access(grants: Sequence[ForeignGrant]) -> Report:
    """Everyone without a condition is a finding; another account is for a person to judge."""
    remarks = []
    for each in grants:
        text = f"{each.resource} lets {each.principal} {', '.join(each.actions)}"
        if each.principal == "*" and not each.limited:
            remarks.append(Remark("finding", f"{text}: everyone"))
        else:
            remarks.append(Remark("warning", f"{text}: is that still wanted?"))
    lead = (
        f"{len(grants)} grants to others."
        if grants
        else "No other account may use queues, bucket, key or roles."
    )
    return section_report(lead, remarks, numbers={"grants": len(grants)})


def newest_provider() -> str | None:
    """The newest version of Terraform's provider for AWS; None if its registry does not answer."""
    try:
        answer = httpx2.get(_REGISTRY, timeout=5.0)
        return str(answer.json()["version"]) if answer.status_code == 200 else None
    except (httpx2.HTTPError, ValueError, KeyError, TypeError):
        return None


def terraform(pins: str, newest: str | None) -> Report:
    """Compare the pin of the provider with the newest version. `pins` is the text of versions.tf."""
    (pinned,) = re.findall(r'source\s*=\s*"hashicorp/aws"\s*version\s*=\s*"~> (\d+)\.\d+"', pins)
    remarks = []
    if newest is None:
        remarks.append(
            Remark("warning", "unknown: newest version: the registry of Terraform does not answer")
        )
    elif newest.partition(".")[0] != pinned:
        text = (
            f"the provider is at {newest}, the module at {pinned}: raise it in deploy/terraform/versions.tf"
        )
        remarks.append(Remark("warning", text))
    lead = (
        f"The module accepts version {pinned} of the provider for AWS; the newest is {newest or 'unknown'}."
    )
    return section_report(lead, remarks, numbers={"pinned": pinned, "newest": newest})


def dependencies(report: DependencyReport) -> Report:
    """Compare the lock with the package index and advisories. `unknown` means that they could not be read."""
    remarks = []
    for each in report.vulnerable or ():
        fixed = f"; fixed in {', '.join(each.fixed_in)}" if each.fixed_in else ""
        remarks.append(Remark("finding", f"{each.name} {each.locked} is vulnerable ({each.id}){fixed}"))
    remarks += [Remark("warning", f"unknown: {note}") for note in report.notes]
    outdated = report.outdated or ()
    major = [each for each in outdated if each.locked.partition(".")[0] != each.latest.partition(".")[0]]
    if major:
        text = f"{len(major)} are a major version behind; `make lock` updates them as far as pyproject.toml allows"
        remarks.append(Remark("warning", text))
    first = [*major, *(each for each in outdated if each not in major)]
    rows = [(each.name, each.locked, each.latest, "yes" if each in major else None) for each in first]
    known = {
        "outdated": None if report.outdated is None else len(outdated),
        "vulnerable": None if report.vulnerable is None else len(report.vulnerable),
    }
    counts = ", ".join(
        f"{'unknown how many' if number is None else number} {name}" for name, number in known.items()
    )
    return section_report(
        f"{report.packages} packages are locked: {counts}.",
        remarks,
        (Table("Outdated", ("package", "locked", "latest", "major"), rows),) if rows else (),
        {},
        {"packages": report.packages, **known},
    )


def recovery(result: DrillResult | None) -> Report:
    """The result of the recovery drill; domain/drill.py defines its findings."""
    if result is None:
        text = "this review included no drill: run `regworkers drill recovery`"
        return section_report("Skipped.", (Remark("warning", text),))
    remarks = [Remark("finding", text) for text in result.findings]
    if result.refused:
        text = f"{result.refused:,} entries of the source are invalid: they can never be replicated"
        remarks.append(Remark("warning", text))
    rate, estimate = result.per_second, result.estimate_seconds
    rows: list[tuple[str, object]] = [
        ("entries rebuilt", result.saved),
        ("seconds", round(result.seconds, 1)),
        ("entries per second, one process", None if rate is None else round(rate)),
        ("entries in total", result.total),
        ("minutes for all entries", None if estimate is None else float(f"{estimate / 60:.3g}")),
        ("objective, minutes", round(result.objective_seconds / 60, 1)),
        ("save drains needed", result.processes_needed),
        ("entries that differ", sum(result.differences.values())),
        ("scratch database", f"{result.scratch}{' (dropped)' if result.dropped else ' (NOT DROPPED)'}"),
    ]
    plots = {}
    if estimate is not None:
        objective = result.objective_seconds / 60
        minutes = {
            "one process": estimate / 60,
            "backfill alone": (result.total or 0) / result.limit_per_second / 60,
        }
        red = frozenset(name for name, value in minutes.items() if value > objective)
        texts = [f"{value:,.1f} min" for value in minutes.values()]
        title = "Time to rebuild the replica"
        plots["estimate"] = bars(
            title, "minutes", minutes, texts=texts, red=red, limit=("objective", objective)
        )
    lead = "Passed." if result.passed else "Not passed."
    if result.ended == "most_entries":
        lead += " Only some entries were rebuilt; the time for all is an estimate."
    return section_report(
        lead,
        remarks,
        (Table("The drill", ("", "value"), rows),),
        plots,
        result.as_dict(),
    )
