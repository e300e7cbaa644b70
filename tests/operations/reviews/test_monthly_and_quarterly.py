"""The remarks and figures of the monthly and the quarterly review."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from regworkers_core.domain.drill import DrillResult
from regworkers_core.operations.dependencies import DependencyReport, Outdated, Vulnerability
from regworkers_core.operations.health.activity import Window
from regworkers_core.operations.reviews.monthly import by_week, cost, sizes
from regworkers_core.operations.reviews.quarterly import (
    PINS,
    ForeignGrant,
    declared_policies,
    dependencies,
    foreign_access,
    foreign_grants,
    grants,
    privileges,
    recovery,
    terraform,
)
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings
from tests.operations.reviews.world import DAY, NOW, ago, day, has, said

MONTH = Window(NOW - 30 * DAY, NOW)


@pytest.mark.parametrize(("mib", "level"), [(500.0, ""), (850.0, "warning"), (1000.0, "finding")])
def test_memory_near_its_limit_is_a_warning_and_at_the_limit_a_finding(mib: float, level: str) -> None:
    section = sizes(day(memory_mib=mib), Settings(), MONTH)
    assert [remark.level for remark in section.remarks] == ([level] if level else [])
    assert section.tables[0].rows[0][1] == mib


def test_memory_that_was_not_recorded_is_unknown() -> None:
    section = sizes(day(), Settings(), MONTH)
    assert section.remarks == [] and section.tables[0].rows[0][1] is None


def test_weeks_contain_the_days_that_begin_in_them() -> None:
    weeks = by_week(day(29.9) | day(20) | day(0.1), MONTH.since)
    assert sorted(weeks) == list(weeks) and [len(each) for each in weeks.values()] == [1, 1, 1]
    assert next(iter(weeks)) == ago(30)[:10]


def test_a_month_without_a_drain_is_no_data_and_no_price() -> None:
    for section in (sizes({}, Settings(), MONTH), cost({}, {}, MONTH)):
        assert section.said[0].startswith("No data since") and not said(section, "finding")


def test_what_a_million_entries_cost_is_compared_with_the_review_before() -> None:
    section = cost(day(), {}, MONTH)
    now = section.document["dollarsPerMillionEntries"]
    assert now and "trend.png" in section.files and not said(section, "warning")
    earlier = {ago(60)[:10]: now * 5, ago(31)[:10]: now / 2}
    assert has(cost(day(), earlier, MONTH), "warning", "100 % more")
    assert not said(cost(day(), {ago(31)[:10]: now}, MONTH), "warning")


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


SAVE = {"Action": ["sqs:SendMessage"], "Resource": ["arn:aws:sqs:::queue"]}


def test_wildcards_and_changes_of_everything_are_findings() -> None:
    assert not privileges({"save": policy(SAVE)}).remarks
    section = privileges({"save": policy({"Action": "sqs:*", "Resource": "*"})})
    assert has(section, "finding", "save", "sqs:*") and has(section, "warning", "on all resources")
    bounded = policy({"Action": ["cloudwatch:PutMetricData"], "Resource": ["*"], "Condition": {"x": {}}})
    assert not privileges({"save": bounded}).remarks
    foreign = policy({"Action": ["sqs:SendMessage"], "Resource": ["arn:aws:sqs:REGION:210987654321:queue"]})
    assert has(privileges({"save": foreign}), "finding", "save reaches other accounts: 210987654321")


def test_no_declared_policy_is_a_finding() -> None:
    section = privileges(declared_policies())
    assert len(section.document) == len(declared_policies()) > 20
    assert not [remark for remark in section.remarks if remark.level == "finding"]


def test_dependencies_that_could_not_be_checked_are_unknown() -> None:
    section = dependencies(DependencyReport(180, None, None, (), ("outdated: uv got no answer: offline?",)))
    assert "unknown how many outdated, unknown how many vulnerable" in section.said[0]
    assert has(section, "warning", "offline?") and section.document["outdated"] is None


def test_a_vulnerable_dependency_is_a_finding_and_major_versions_come_first() -> None:
    outdated = (Outdated("a", "1.0", "1.1"), Outdated("b", "1.0", "2.0"))
    vulnerable = (Vulnerability("c", "1.0", "CVE-1", ("1.0.1",)),)
    section = dependencies(DependencyReport(3, outdated, vulnerable))
    assert has(section, "finding", "c 1.0", "CVE-1", "1.0.1") and has(section, "warning", "1 are a major")
    assert [row[0] for row in section.tables[0].rows] == ["b", "a"]
    assert not dependencies(DependencyReport(3, (), ())).remarks


def drill(**changes: Any) -> DrillResult:
    values: dict[str, Any] = {
        "ended": "finished",
        "read": 10,
        "saved": 10,
        "refused": 0,
        "gone": 0,
        "differences": {},
        "samples": (),
        "seconds": 1.0,
        "compare_seconds": 1.0,
        "total": 10,
        "limit_per_second": 1000.0,
        "objective_seconds": 3600.0,
        "scratch": "drill-20261125000000",
        "dropped": True,
        **changes,
    }
    return DrillResult(**values)


def test_a_drill_is_reported_with_its_findings_and_a_missing_one_is_a_warning() -> None:
    assert recovery(drill()).said[0] == "Passed." and not recovery(drill()).remarks
    red = recovery(drill(differences={"stale": 2}, samples=("c:e",)))
    assert red.said[0] == "Not passed." and has(red, "finding", "2 stale", "c:e")
    assert has(recovery(drill(dropped=False)), "finding", "could not be dropped")
    assert has(recovery(drill(refused=1)), "warning", "are invalid")
    assert has(recovery(None), "warning", "regworkers drill recovery")
    assert "estimate.png" not in recovery(drill(total=None)).files


def test_a_provider_of_a_newer_major_version_is_a_warning_and_a_silent_registry_is_unknown() -> None:
    pins = PINS.read_text()
    assert not terraform(pins, "6.99.0").remarks
    assert "raise it in deploy/terraform/versions.tf" in terraform(pins, "7.0.1").remarks[0].text
    assert "unknown" in terraform(pins, None).remarks[0].text


OWN = "123456789012"
OTHER = "arn:aws:iam::999999999999:root"


def allow(principal: object, **more: object) -> dict[str, object]:
    return {"Statement": [{"Effect": "Allow", "Principal": principal, "Action": "sqs:SendMessage", **more}]}


@pytest.mark.parametrize(
    ("policy", "principals"),
    [
        ({}, []),
        (allow({"AWS": f"arn:aws:iam::{OWN}:root"}), []),
        (allow({"AWS": OWN}), []),
        (allow({"Service": "lambda.amazonaws.com"}), []),
        (allow({"Federated": f"arn:aws:iam::{OWN}:oidc-provider/x"}), []),
        (allow({"AWS": [OTHER, OWN]}), [OTHER]),
        (allow({"AWS": "999999999999"}), ["999999999999"]),
        (allow("*"), ["*"]),
        (allow({"AWS": "*"}), ["*"]),
        (allow("*", Effect="Deny"), []),
    ],
)
def test_a_grant_is_foreign_if_its_principal_is_not_of_our_account(
    policy: dict[str, object], principals: list[str]
) -> None:
    assert [each.principal for each in grants("queue", policy, OWN)] == principals


def test_everyone_is_a_finding_and_another_account_is_to_be_judged() -> None:
    section = foreign_access(
        [
            ForeignGrant("q", "*", ("sqs:SendMessage",), limited=False),
            ForeignGrant("q", "*", ("sqs:SendMessage",), limited=True),
            ForeignGrant("b", OTHER, ("s3:GetObject",), limited=False),
        ]
    )
    assert [each.level for each in section.remarks] == ["finding", "warning", "warning"]
    assert "b lets arn:aws:iam::999999999999:root s3:GetObject" in section.remarks[2].text


def test_a_queue_that_another_account_may_send_to_is_found_on_the_server(runtime: Runtime) -> None:
    assert foreign_grants(runtime) == []
    url = runtime.sqs.get_queue_url(QueueName=runtime.names.analytics_queue)["QueueUrl"]
    policy = orjson.dumps({"Version": "2012-10-17", **allow({"AWS": OTHER}, Resource="*")}).decode()
    runtime.sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    assert foreign_grants(runtime) == [
        ForeignGrant(runtime.names.analytics_queue, OTHER, ("sqs:SendMessage",), limited=False)
    ]
