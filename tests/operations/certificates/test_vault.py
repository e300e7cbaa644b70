"""Vault through its client: both logins, an issue, and for each refusal a way out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from regworkers_core.adapters.vault import Vault, classify_vault
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Dependency, RetryPolicy
from regworkers_core.settings import VaultSettings
from tests.support.certificates import Authority
from tests.support.vault import PASSWORD, ROLE_ID, SECRET_ID, SECRETS, TOKEN, USER, FakeVault, vault_of


@pytest.fixture(scope="module")
def _served() -> Iterator[FakeVault]:
    with vault_of(Authority("Issuing", Authority("Root"))) as vault:
        yield vault


@pytest.fixture
def served(_served: FakeVault) -> FakeVault:
    """As if it were new."""
    fresh = FakeVault(_served.authority, _served.url)
    _served.__dict__.update(fresh.__dict__)
    return _served


def client(served: FakeVault, **settings: Any) -> Vault:
    policy = RetryPolicy(attempts=1, total_seconds=2)
    section = VaultSettings.model_validate({"address": served.url, "timeout_seconds": 5, **settings})
    return Vault(section, Dependency("vault", classify_vault, policy=policy))


def refusal(vault: Vault, *, login: bool = True) -> str:
    with pytest.raises(UsageError) as caught:
        if login:
            vault.login_user(USER, PASSWORD)
        vault.issue("regworkers-qa")
    assert not any(secret in str(caught.value) for secret in SECRETS)
    return str(caught.value)


@pytest.mark.parametrize("method", ["user", "app"])
def test_a_login_and_an_issue_give_certificate_key_and_chain(served: FakeVault, method: str) -> None:
    vault = client(served, namespace="teams/kafka")
    if method == "user":
        vault.login_user(USER, PASSWORD)
    else:
        vault.login_app(ROLE_ID, SECRET_ID)
    issued = vault.issue("regworkers-qa")
    assert issued.certificate.startswith("-----BEGIN CERTIFICATE-----") and len(issued.chain) == 2
    assert issued.bundle == issued.certificate + issued.key + "".join(issued.chain)
    assert served.asked[0]["common_name"] == "regworkers-qa" and served.asked[0]["ttl"] == "2160h"
    assert {namespace for *_, namespace in served.requests} == {"teams/kafka"}
    assert issued.key not in repr(issued)


def test_the_token_is_given_back(served: FakeVault) -> None:
    vault = client(served)
    vault.login_user(USER, PASSWORD)
    vault.close()
    assert served.revoked == 1


def test_a_token_that_lies_about_is_never_sent(served: FakeVault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "hvs.another-user")
    client(served).login_user(USER, PASSWORD)
    assert served.requests[0][2] in (None, "")


def test_a_name_with_a_slash_stays_one_name(served: FakeVault) -> None:
    with pytest.raises(UsageError):
        client(served).login_user("../x?y", PASSWORD)
    assert served.requests[0][1] == "/v1/auth/userpass/login/..%2Fx%3Fy"


@pytest.mark.parametrize(("method", "said"), [("user", "name or password"), ("app", "role id or secret id")])
def test_a_wrong_login_is_reported_without_repeating_it(served: FakeVault, method: str, said: str) -> None:
    vault = client(served)
    with pytest.raises(UsageError, match=said) as caught:
        if method == "user":
            vault.login_user("eve", "guess")
        else:
            vault.login_app("eve", "guess")
    assert "eve" not in str(caught.value) and "guess" not in str(caught.value)


def test_a_locked_login_is_reported(served: FakeVault) -> None:
    served.locked = True
    assert "locked" in refusal(client(served))


def test_a_sealed_vault_names_who_can_help(served: FakeVault) -> None:
    served.sealed = True
    assert "unseal" in refusal(client(served))


def test_a_vault_that_is_not_initialised_is_reported(served: FakeVault) -> None:
    served.initialised = False
    assert "not initialised" in refusal(client(served))


def test_a_missing_policy_is_not_taken_for_an_expired_token(served: FakeVault) -> None:
    served.allowed = False
    assert "policy" in refusal(client(served)) and "pki/issue/regworkers" in refusal(client(served))
    served.allowed, served.expires = True, True
    assert "token has expired" in refusal(client(served))


def test_an_issue_without_a_login_is_refused(served: FakeVault) -> None:
    assert "token has expired" in refusal(client(served), login=False)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"role": "other"}, "vault.role"),
        ({"mount": "elsewhere"}, "vault.mount"),
        ({"user_mount": "ldap"}, "vault.userMount"),
        ({"ttl": "999999h"}, "vault.ttl"),
    ],
)
def test_a_wrong_setting_is_named(served: FakeVault, settings: dict[str, str], said: str) -> None:
    assert said in refusal(client(served, **settings))


def test_a_name_that_the_role_does_not_allow_is_reported(served: FakeVault) -> None:
    vault = client(served)
    vault.login_user(USER, PASSWORD)
    with pytest.raises(UsageError, match=r"vault\.commonName"):
        vault.issue("another-name")


@pytest.mark.parametrize("other", [{"page": True}, {"status": 401}])
def test_a_page_or_a_login_of_another_program_is_not_taken_for_vault(
    served: FakeVault, other: dict[str, Any]
) -> None:
    for name, value in other.items():
        setattr(served, name, value)
    assert "does not answer as Vault does" in refusal(client(served))


def test_an_unreachable_vault_is_transient_and_named_by_its_address(served: FakeVault) -> None:
    with pytest.raises(TransientFailure, match=r"127\.0\.0\.1:9"):
        client(served, address="http://127.0.0.1:9").login_user(USER, PASSWORD)


@pytest.mark.parametrize("status", [429, 500, 502])
def test_one_that_is_busy_or_broken_is_transient(served: FakeVault, status: int) -> None:
    served.status = status
    with pytest.raises(TransientFailure) as caught:
        client(served).login_user(USER, PASSWORD)
    assert USER not in str(caught.value) and TOKEN not in str(caught.value)


def test_without_an_address_the_setting_is_named(served: FakeVault) -> None:
    with pytest.raises(UsageError, match="REGWORKERS_VAULT__ADDRESS"):
        client(served, address="")
