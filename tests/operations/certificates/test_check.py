"""`regworkers certs check`: a row for each environment, and an exit code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.operations.certificates.world import CA, Company
from tests.support.certificates import Authority, Pair
from tests.support.terminal import Answer

Typed = Callable[..., Answer]


def row(answer: Answer, environment: str) -> dict[str, Any]:
    return next(each for each in answer.document if each["environment"] == environment)


def problems(found: dict[str, Any]) -> list[str]:
    return [each["problem"] for each in found["findings"]]


def test_all_environments_are_a_table_and_fine_ones_are_exit_code_0(
    company: Company, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    for environment in ("qa", "preprod", "prod"):
        company.store(environment, company.issuing.client(f"regworkers-{environment}"))
    answer = typed("check")
    assert answer.code == 0, answer.stderr
    for word in ("local-dev", "qa", "preprod", "prod", "CN=regworkers-prod", "CN=Company Root", "matches"):
        assert word in answer.stdout
    document = typed("check", "--format", "json")
    assert [each["state"] for each in document.document] == ["none", "fine", "fine", "fine"]
    assert row(document, "qa")["chain"] == ["CN=regworkers-qa", "CN=Company Issuing", "CN=Company Root"]


@pytest.mark.parametrize("days", [19.9, 4, -1])
def test_under_twenty_days_is_exit_code_1(company: Company, typed: Typed, days: float) -> None:
    company.store("qa", company.ca.client(days=days))
    answer = typed("check", "--env", "qa", "--format", "json")
    assert answer.code == 1
    assert problems(row(answer, "qa")) == ["EXPIRED" if days < 0 else "ENDS_SOON"]


def test_the_limit_is_a_setting_and_an_option(company: Company, typed: Typed) -> None:
    company.store("qa", company.ca.client(days=25))
    assert typed("check", "--env", "qa").code == 0
    assert typed("check", "--env", "qa", "--days", "30").code == 1
    company.configure("prod", certificates={"warnDays": 30})
    company.store("prod", company.ca.client(days=25))
    assert typed("check", "--env", "prod").code == 1


@pytest.mark.parametrize(
    ("expected", "make"),
    [
        ("KEY_MISMATCH", lambda company: (company.ca.client(), company.ca.client().key)),
        ("BROKEN_CHAIN", lambda company: (Authority("Stranger").client(), None)),
        ("NOT_YET_VALID", lambda company: (company.ca.client(starts=3), None)),
    ],
)
def test_every_other_finding_is_exit_code_1_too(
    company: Company, typed: Typed, expected: str, make: Callable[[Company], tuple[Pair, str | None]]
) -> None:
    pair, key = make(company)
    company.store("qa", pair, key=key)
    answer = typed("check", "--env", "qa", "--format", "json")
    assert answer.code == 1 and problems(row(answer, "qa")) == [expected]


def test_an_environment_that_cannot_be_read_is_named_and_leaves_the_others_alone(
    company: Company, typed: Typed
) -> None:
    company.store("qa", company.ca.client())
    answer = typed("check", "--format", "json")
    assert answer.code == 0, "another environment is no finding"
    assert row(answer, "prod")["state"] == "unreadable" and "does not exist" in row(answer, "prod")["error"]
    assert typed("check", "--env", "prod").code == 2, "but one that was named has to be read"


def test_our_own_environment_has_to_be_read_and_so_has_at_least_one(company: Company, typed: Typed) -> None:
    company.store("prod", company.ca.client())
    assert typed("check").code == 2
    company.store("prod", company.ca.client(days=1))
    assert typed("check").code == 1, "a finding goes before it"


def test_an_environment_without_a_certificate_is_no_finding(company: Company, typed: Typed) -> None:
    answer = typed("check", "--env", "local-dev", "--format", "json")
    assert answer.code == 0 and row(answer, "local-dev")["state"] == "none"


def test_wrong_settings_of_one_environment_leave_the_others_alone(company: Company, typed: Typed) -> None:
    company.store("qa", company.ca.client())
    company.configure("prod", kafka={"tls": {"keySecret": "alone"}})
    answer = typed("check", "--format", "json")
    assert answer.code == 0
    assert "prod.config.yml" in row(answer, "prod")["error"]
    assert "no certificate" in row(answer, "prod")["error"]


def test_settings_of_this_process_are_not_taken_for_those_of_other_environments(
    company: Company, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGWORKERS_KAFKA__TLS__CERTIFICATE", company.ca.client("inline").bundle)
    company.store("qa", company.ca.client())
    company.store("prod", company.ca.client("stored"))
    answer = typed("check", "--format", "json")
    assert row(answer, "qa")["subject"] == "CN=inline" and row(answer, "prod")["subject"] == "CN=stored"


def test_an_unknown_environment_is_exit_code_2(company: Company, typed: Typed) -> None:
    answer = typed("check", "--env", "moon")
    assert answer.code == 2 and "local-dev, qa, preprod or prod" in answer.stderr


def test_nothing_of_a_key_is_shown(company: Company, typed: Typed) -> None:
    pair = company.ca.client(days=3)
    company.store("qa", pair)
    for words in (("check",), ("check", "--format", "json")):
        answer = typed(*words)
        assert pair.key.splitlines()[1] not in answer.stdout + answer.stderr


def test_a_ca_that_is_missing_is_named(company: Company, typed: Typed) -> None:
    company.store("qa", company.ca.client())
    runtime = company.runtime("qa")
    runtime.aws.client("secretsmanager").delete_secret(
        SecretId=runtime.names.prefix + CA, ForceDeleteWithoutRecovery=True
    )
    answer = typed("check", "--env", "qa", "--format", "json")
    assert answer.code == 2 and CA in row(answer, "qa")["error"]
