"""What a certificate is worth, and each thing that can be wrong with it alone."""

from __future__ import annotations

import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from regworkers_core.adapters.kafka.security import Material
from regworkers_core.operations.certificates import CertificateProblem, Inspection, inspect
from tests.support.certificates import Authority, Pair

ROOT = Authority("Root")
ISSUING = Authority("Issuing", ROOT)
DAY_SECONDS = 86_400
NOW = time.time()


def judged(pair: Pair, ca: str | None = ROOT.pem, *, now: float = NOW, key: str | None = None) -> Inspection:
    material = Material(pair.certificate + pair.chain, key or pair.key, ca)
    return inspect(material, now=now, warn_days=20)


def problems(inspection: Inspection) -> list[CertificateProblem]:
    return [finding.problem for finding in inspection.findings]


def test_a_good_one_has_no_findings_and_tells_who_it_is_who_issued_it_and_how_long_it_lasts() -> None:
    found = judged(ISSUING.client("regworkers-qa"))
    assert found.findings == ()
    assert found.subject == "CN=regworkers-qa" and found.issuer == "CN=Issuing"
    assert found.chain == ("CN=regworkers-qa", "CN=Issuing", "CN=Root")
    assert found.key_matches is True and found.trusted is True
    assert found.days_left == pytest.approx(90, abs=0.2)


def test_one_that_has_ended_is_expired_and_its_days_are_negative() -> None:
    found = judged(ROOT.client(days=-3))
    assert problems(found) == [CertificateProblem.EXPIRED]
    assert found.days_left is not None and found.days_left < -2.9


def test_a_certificate_that_is_not_valid_yet_is_reported_with_its_start() -> None:
    assert problems(judged(ROOT.client(starts=2))) == [CertificateProblem.NOT_YET_VALID]


_LONG = ROOT.client(days=100)


def _end_of(pair: Pair) -> float:
    return x509.load_pem_x509_certificate(pair.certificate.encode()).not_valid_after_utc.timestamp()


_END = _end_of(_LONG)


@settings(max_examples=30)
@given(st.integers(min_value=1, max_value=60 * DAY_SECONDS))
def test_under_the_limit_is_a_finding_and_no_more_is_shown_than_is_left(seconds: int) -> None:
    found = judged(_LONG, now=_END - seconds)
    assert (problems(found) == [CertificateProblem.ENDS_SOON]) is (seconds < 20 * DAY_SECONDS)
    assert found.days_left is not None and found.days_left <= seconds / DAY_SECONDS


def test_at_exactly_the_limit_there_is_no_finding_and_a_second_later_there_is_one() -> None:
    limit = _END - 20 * DAY_SECONDS
    assert problems(judged(_LONG, now=limit)) == []
    assert problems(judged(_LONG, now=limit + 1)) == [CertificateProblem.ENDS_SOON]


def test_in_its_last_second_it_still_holds_and_then_it_does_not() -> None:
    assert problems(judged(_LONG, now=_END - 1)) == [CertificateProblem.ENDS_SOON]
    assert problems(judged(_LONG, now=_END)) == [CertificateProblem.EXPIRED]


def test_a_key_of_another_certificate_is_reported() -> None:
    found = judged(ROOT.client(), key=ROOT.client().key)
    assert problems(found) == [CertificateProblem.KEY_MISMATCH] and found.key_matches is False


def test_one_of_another_ca_has_a_broken_chain() -> None:
    found = judged(Authority("Stranger").client())
    assert problems(found) == [CertificateProblem.BROKEN_CHAIN] and found.trusted is False


def test_a_stranger_who_calls_himself_as_our_ca_does_is_not_believed() -> None:
    assert problems(judged(Authority("Root").client())) == [CertificateProblem.BROKEN_CHAIN]


def test_without_the_certificates_in_between_the_chain_is_broken() -> None:
    pair = ISSUING.client()
    assert problems(judged(Pair(pair.certificate, pair.key, pair.serial))) == [
        CertificateProblem.BROKEN_CHAIN
    ]


def test_one_in_between_may_be_trusted_itself() -> None:
    pair = ISSUING.client()
    assert judged(Pair(pair.certificate, pair.key, pair.serial), ISSUING.pem).trusted is True


def test_a_client_cannot_issue_for_others() -> None:
    pair = ROOT.client("middle")
    child = Authority("middle", key=pair.key).client()
    shown = Pair(child.certificate, child.key, child.serial, pair.certificate)
    assert problems(judged(shown)) == [CertificateProblem.BROKEN_CHAIN]


def test_an_issuer_that_expires_first_is_reported() -> None:
    brief = Authority("Brief", ROOT, days=10)
    found = judged(brief.client())
    assert problems(found) == [CertificateProblem.ENDS_SOON] and "CN=Brief" in found.findings[0].text


def test_without_a_ca_nothing_is_said_of_the_chain() -> None:
    found = judged(Authority("Any").client(), None)
    assert found.findings == () and found.trusted is None


def test_a_certificate_for_servers_only_is_reported() -> None:
    assert problems(judged(ROOT.client(usage=ExtendedKeyUsageOID.SERVER_AUTH))) == [
        CertificateProblem.WRONG_USE
    ]


@pytest.mark.parametrize("broken", ["certificate", "key", "ca"])
def test_what_is_damaged_is_a_finding(broken: str) -> None:
    pair = ROOT.client()
    garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    texts = {"certificate": pair.certificate, "key": pair.key, "ca": ROOT.pem, broken: garbage}
    found = inspect(Material(**texts), now=NOW, warn_days=20)
    assert CertificateProblem.DAMAGED in problems(found)


def test_a_key_with_a_password_is_read_with_it_only() -> None:
    pair = ROOT.client()
    locked = (
        load_pem_private_key(pair.key.encode(), None)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"open sesame"),
        )
        .decode()
    )
    for password, expected in (
        (None, [CertificateProblem.DAMAGED]),
        ("no", [CertificateProblem.DAMAGED]),
        ("open sesame", []),
    ):
        material = Material(pair.certificate, locked, ROOT.pem, password)
        assert problems(inspect(material, now=NOW, warn_days=20)) == expected


def test_nothing_of_the_key_is_in_what_is_printed() -> None:
    pair = ROOT.client()
    material = Material(pair.certificate, pair.key, ROOT.pem, "open sesame")
    body = pair.key.splitlines()[1]
    assert body not in repr(material) and "sesame" not in repr(material)
    assert body not in str(judged(pair))
