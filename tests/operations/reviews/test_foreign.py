"""Grants to other accounts, in the policies of what is ours."""

from __future__ import annotations

import orjson
import pytest

from regworkers_core.operations.reviews.foreign import ForeignGrant, foreign_grants, grants
from regworkers_core.operations.reviews.quarterly import foreign_access
from regworkers_core.runtime import Runtime

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
