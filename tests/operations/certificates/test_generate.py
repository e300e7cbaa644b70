"""`regworkers certs generate`: from a login to a certificate in its place, and nothing secret on the way."""

from __future__ import annotations

import os
import pty
import select
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from regworkers_core.adapters.kafka.security import pem_blocks
from regworkers_core.cli import certs
from tests.operations.certificates.world import CERTIFICATE, Company
from tests.support.certificates import Authority
from tests.support.terminal import Answer
from tests.support.vault import PASSWORD, ROLE_ID, SECRET_ID, SECRETS, USER, FakeVault, vault_of

Typed = Callable[..., Answer]
USER_LOGIN = ("--method", "user", "--yes")


@pytest.fixture
def vault(company: Company, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeVault]:
    """The company's, with both logins in the environment as in CI."""
    with vault_of(company.issuing) as served:
        monkeypatch.setenv("REGWORKERS_VAULT__ADDRESS", served.url)
        logins = (USER, PASSWORD, ROLE_ID, SECRET_ID)
        names = ("VAULT_USERNAME", "VAULT_PASSWORD", "VAULT_ROLE_ID", "VAULT_SECRET_ID")
        for name, value in zip(names, logins, strict=True):
            monkeypatch.setenv(name, value)
        yield served


def secret(company: Company, environment: Any, *, previous: bool = False) -> str:
    return company.runtime(environment).secrets.get(CERTIFICATE, previous=previous) or ""


@pytest.mark.parametrize("method", ["user", "app"])
@pytest.mark.parametrize(
    ("choice", "environment"), [("qa/dev", "qa"), ("dev", "qa"), ("preprod", "preprod"), ("prod", "prod")]
)
def test_it_is_written_where_the_environments_workers_find_it(
    company: Company, vault: FakeVault, typed: Typed, method: str, choice: str, environment: Any
) -> None:
    answer = typed("generate", "--env", choice, "--method", method, "--yes", "--format", "json")
    assert answer.code == 0, answer.stderr
    assert answer.document["subject"] == f"CN=regworkers-{environment}"
    assert answer.document["daysLeft"] > 80 and answer.document["keyMatches"] is True
    assert f"{company.prefix}-{environment}-{CERTIFICATE}" in answer.document["to"]
    company.runtime(environment).secrets.put("kafka-certificate/ca", company.ca.pem, description="test")
    checked = typed("check", "--env", environment, "--format", "json")
    assert checked.code == 0 and checked.document[0]["serial"] == answer.document["serial"]
    assert vault.revoked == 1, "the token is given back"


def test_the_version_before_stays(company: Company, vault: FakeVault, typed: Typed) -> None:
    before = company.issuing.client(days=3)
    company.store("qa", before)
    assert typed("generate", "--env", "qa", *USER_LOGIN).code == 0
    assert secret(company, "qa") != before.bundle
    assert secret(company, "qa", previous=True) == before.bundle


def test_certificate_and_key_go_into_two_secrets_where_the_settings_name_two(
    company: Company, vault: FakeVault, typed: Typed
) -> None:
    company.configure(
        "qa", kafka={"tls": {"certificateSecret": CERTIFICATE, "keySecret": "kafka-certificate/key"}}
    )
    assert typed("generate", "--env", "qa", *USER_LOGIN).code == 0
    assert "PRIVATE KEY" not in secret(company, "qa")
    assert "PRIVATE KEY" in str(company.runtime("qa").secrets.get("kafka-certificate/key"))
    assert typed("check", "--env", "qa").code == 0


def test_for_ci_it_is_certificate_key_and_chain_alone_on_stdout(
    company: Company, vault: FakeVault, typed: Typed
) -> None:
    answer = typed("generate", "--env", "prod", *USER_LOGIN, "--to", "ci")
    assert answer.code == 0 and answer.stderr == ""
    kinds = [line for line in answer.stdout.splitlines() if line.startswith("-----BEGIN")]
    assert kinds == [
        "-----BEGIN CERTIFICATE-----",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----",
    ]
    shown = x509.load_pem_x509_certificates(pem_blocks(answer.stdout, "CERTIFICATE").encode())
    key = load_pem_private_key(pem_blocks(answer.stdout, "PRIVATE KEY").encode(), None)
    assert shown[0].public_key() == key.public_key()
    assert shown[0].issuer == shown[1].subject
    assert secret(company, "prod") == "", "nothing is written to the secret store"


@pytest.mark.parametrize(
    ("environment", "variable"),
    [("qa/dev", "nonprod_kafka_cert"), ("preprod", "preprod_kafka_cert"), ("prod", "prod_kafka_cert")],
)
def test_a_file_for_ci_is_its_owners_alone_and_names_the_variable(
    company: Company, vault: FakeVault, typed: Typed, tmp_path: Path, environment: str, variable: str
) -> None:
    path = tmp_path / "for-ci.pem"
    answer = typed("generate", "--env", environment, *USER_LOGIN, "--to", "ci", "--output", str(path))
    assert answer.code == 0 and variable in answer.stdout and "PRIVATE KEY" not in answer.stdout
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and "PRIVATE KEY" in path.read_text()


def test_a_file_that_is_there_is_left_alone_and_vault_is_not_asked(
    company: Company, vault: FakeVault, typed: Typed, tmp_path: Path
) -> None:
    path = tmp_path / "there.pem"
    path.write_text("mine")
    answer = typed("generate", "--env", "qa", *USER_LOGIN, "--to", "ci", "--output", str(path))
    assert answer.code == 2 and path.read_text() == "mine" and vault.requests == []


def test_what_ci_is_given_serves_as_a_setting(
    company: Company, vault: FakeVault, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = typed("generate", "--env", "qa", *USER_LOGIN, "--to", "ci").stdout
    company.configure("qa", kafka={})
    monkeypatch.setenv("REGWORKERS_KAFKA__TLS__CERTIFICATE", pem)
    assert typed("check", "--env", "qa").code == 0


def test_a_dry_run_shows_the_request_and_sends_none(company: Company, vault: FakeVault, typed: Typed) -> None:
    answer = typed("generate", "--env", "prod", "--dry-run", "--format", "json")
    assert answer.code == 0 and vault.requests == []
    assert answer.document["path"] == "pki/issue/regworkers"
    assert answer.document["commonName"] == "regworkers-prod"


def test_without_a_yes_and_without_a_terminal_nothing_is_asked_for(
    company: Company, vault: FakeVault, typed: Typed
) -> None:
    answer = typed("generate", "--env", "qa", "--method", "user")
    assert answer.code == 2 and "--yes" in answer.stderr and vault.requests == []


@pytest.mark.parametrize("typed_in", ["no", "", "Y E S"])
def test_any_other_answer_than_yes_issues_nothing(
    company: Company,
    vault: FakeVault,
    typed: Typed,
    monkeypatch: pytest.MonkeyPatch,
    typed_in: str,
) -> None:
    monkeypatch.setattr(certs, "ask", lambda _question, *_, **__: typed_in)
    answer = typed("generate", "--env", "qa", "--method", "user")
    assert answer.code == 2 and "nothing was done" in answer.stderr and vault.requests == []


@pytest.mark.parametrize("missing", ["VAULT_USERNAME", "VAULT_PASSWORD"])
def test_without_a_terminal_a_missing_login_names_its_variable(
    company: Company, vault: FakeVault, typed: Typed, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.delenv(missing)
    answer = typed("generate", "--env", "qa", *USER_LOGIN)
    assert answer.code == 2 and missing in answer.stderr


# What was issued is verified before it is written


@pytest.mark.parametrize("wrong", ["key", "days", "ca"])
def test_what_is_wrong_is_written_nowhere(
    company: Company, vault: FakeVault, typed: Typed, wrong: str
) -> None:
    before = company.issuing.client()
    company.store("qa", before)
    if wrong == "key":
        vault.wrong_key = True
    elif wrong == "days":
        vault.days = 7
    else:
        vault.authority = Authority("Of another company")
    answer = typed("generate", "--env", "qa", *USER_LOGIN)
    said = {"key": "another certificate", "days": "max_ttl", "ca": "kafka.tls"}[wrong]
    assert answer.code == 2 and said in answer.stderr
    assert secret(company, "qa") == before.bundle


# Refusals: each with a way out, none with a secret


def sealed(vault: FakeVault) -> None:
    vault.sealed = True


def denied(vault: FakeVault) -> None:
    vault.allowed = False


def ended(vault: FakeVault) -> None:
    vault.expires = True


@pytest.mark.parametrize(
    ("what", "said"), [(sealed, "unseal"), (denied, "policy"), (ended, "run the command again")]
)
def test_a_refusal_of_vaults_is_exit_code_2_with_a_way_out(
    company: Company, vault: FakeVault, typed: Typed, what: Callable[[FakeVault], None], said: str
) -> None:
    what(vault)
    answer = typed("generate", "--env", "qa", *USER_LOGIN)
    assert answer.code == 2 and said in answer.stderr and answer.stdout == ""
    assert len(answer.stderr.strip().splitlines()) == 1


def test_a_wrong_password_is_reported_and_not_shown(
    company: Company, vault: FakeVault, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_PASSWORD", "a-guess")
    answer = typed("generate", "--env", "qa", *USER_LOGIN)
    assert answer.code == 2 and "type it again" in answer.stderr
    assert "a-guess" not in answer.stderr and USER not in answer.stderr


def test_an_unreachable_vault_is_reported_without_advice_on_our_own_servers(
    company: Company, vault: FakeVault, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGWORKERS_VAULT__ADDRESS", "http://127.0.0.1:9")
    answer = typed("generate", "--env", "qa", *USER_LOGIN)
    assert answer.code == 2 and "is vault.address right" in answer.stderr and "stack" not in answer.stderr


def test_without_an_address_the_setting_is_named(
    company: Company, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = typed("generate", "--env", "qa", *USER_LOGIN)
    assert answer.code == 2 and "vault.address" in answer.stderr


def test_local_dev_is_none_of_the_choices(company: Company, vault: FakeVault, typed: Typed) -> None:
    answer = typed("generate", "--env", "local-dev", *USER_LOGIN)
    assert answer.code == 2 and "qa/dev, preprod or prod" in answer.stderr


# The terminal


class Terminal:
    """A process at a terminal of its own; `screen` is all that was ever shown on it."""

    def __init__(self, *words: str) -> None:
        ours, theirs = pty.openpty()
        self._ours = ours
        self.screen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from regworkers_core.cli.main import main; main()", *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def answers(self, question: str, answer: str) -> None:
        self._read_until(question)
        os.write(self._ours, answer.encode() + b"\n")

    def end(self) -> int:
        self._read_until(None)
        os.close(self._ours)
        return self.process.wait(timeout=20)

    def _read_until(self, text: str | None) -> None:
        seen = len(self.screen)
        while text is None or text not in self.screen[seen:]:
            assert select.select([self._ours], [], [], 30)[0], f"no {text!r} on: {self.screen}"
            try:
                piece = os.read(self._ours, 4096)
            except OSError:
                piece = b""
            if not piece:
                assert text is None, self.screen
                return
            self.screen += piece.decode()


def test_at_a_terminal_it_asks_for_all_that_is_missing_and_shows_nothing_of_a_login(
    company: Company, vault: FakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VAULT_USERNAME", "VAULT_PASSWORD", "VAULT_ROLE_ID", "VAULT_SECRET_ID"):
        monkeypatch.delenv(name)
    terminal = Terminal("certs", "generate")
    terminal.answers("environment (qa/dev, preprod or prod)", "qa/dev")
    terminal.answers("issue it?", "yes")
    terminal.answers("user or app", "app")
    terminal.answers("role id", ROLE_ID)
    terminal.answers("secret id", SECRET_ID)
    assert terminal.end() == 0, terminal.screen
    assert not [each for each in SECRETS if each in terminal.screen]
    assert "PRIVATE KEY" not in terminal.screen
    assert "PRIVATE KEY" in secret(company, "qa")
