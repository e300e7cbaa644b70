"""Roles by their ARN, and by the ARN of a session."""

from __future__ import annotations

import pytest

from regworkers_core.settings.flows import Role

ROLE = Role("aws", "123456789012", "registration")


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:iam::123456789012:role/registration",
        "arn:aws:iam::123456789012:role/backends/prod/registration",
        "arn:aws:iam::123456789012:role/aws-reserved/sso.amazonaws.com/eu-west-1/registration",
    ],
)
def test_a_role_is_its_account_and_name_whatever_its_path(arn: str) -> None:
    assert Role.named(arn) == ROLE
    assert Role.of_session("arn:aws:sts::123456789012:assumed-role/registration/i-0abc@host") == ROLE


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:iam::123456789012:role/",
        "arn:aws:iam::123456789012:role/registration\n",
        "arn:aws:iam::12345678901:role/registration",
        "arn:aws:iam::*:role/registration",
        "arn:aws:iam::123456789012:role/*",
        "arn:aws:iam::123456789012:user/registration",
        "arn:aws:iam::123456789012:root",
        "registration",
        "",
    ],
)
def test_what_names_no_one_role_is_none(arn: str) -> None:
    assert Role.named(arn) is None


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:sts::123456789012:assumed-role/registration",
        "arn:aws:sts::123456789012:assumed-role/registration/",
        "arn:aws:sts::123456789012:assumed-role/path/registration/session",
        "arn:aws:sts::123456789012:federated-user/registration/session",
        "arn:aws:sts::123456789012:assumed-role/registration/session\n",
        "arn:aws:iam::123456789012:role/registration",
        "arn:aws:iam::123456789012:user/registration",
        "xarn:aws:sts::123456789012:assumed-role/registration/session",
        None,
        5,
        ["arn:aws:sts::123456789012:assumed-role/registration/session"],
    ],
)
def test_what_is_no_session_of_a_role_is_none(arn: object) -> None:
    assert Role.of_session(arn) is None


def test_partitions_and_accounts_are_distinguished() -> None:
    assert Role.of_session("arn:aws-cn:sts::123456789012:assumed-role/registration/session") != ROLE
    assert Role.of_session("arn:aws:sts::210987654321:assumed-role/registration/session") != ROLE
    assert Role.of_session("arn:aws:sts::123456789012:assumed-role/Registration/session") != ROLE
