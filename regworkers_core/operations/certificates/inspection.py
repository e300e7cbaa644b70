"""What a certificate is worth, from its bytes alone: days left, key, chain, use. Nobody is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from regworkers_core.adapters.kafka.security import Material
from regworkers_core.domain.timestamps import iso

_DAY_SECONDS = 86_400
# Longer than any chain that is meant.
_LONGEST_CHAIN = 10


class Problem(StrEnum):
    DAMAGED = "DAMAGED"
    EXPIRED = "EXPIRED"
    NOT_YET_VALID = "NOT_YET_VALID"
    ENDS_SOON = "ENDS_SOON"
    KEY_MISMATCH = "KEY_MISMATCH"
    BROKEN_CHAIN = "BROKEN_CHAIN"
    WRONG_USE = "WRONG_USE"


@dataclass(frozen=True, slots=True)
class Finding:
    """`text` says what is wrong and what helps; nothing secret is in it."""

    problem: Problem
    text: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """Of a certificate that cannot be read there are findings only. `chain` are the subjects from the client's own up
    to the CA that is trusted; `trusted` is None where no CA was given, and `days_left` negative once it has ended.
    """

    findings: tuple[Finding, ...]
    subject: str | None = None
    issuer: str | None = None
    serial: str | None = None
    not_before: str | None = None
    not_after: str | None = None
    days_left: float | None = None
    key_matches: bool | None = None
    trusted: bool | None = None
    chain: tuple[str, ...] = field(default=())

    def has(self, *problems: Problem) -> bool:
        return any(finding.problem in problems for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "issuer": self.issuer,
            "serial": self.serial,
            "notBefore": self.not_before,
            "notAfter": self.not_after,
            "daysLeft": self.days_left,
            "keyMatches": self.key_matches,
            "trusted": self.trusted,
            "chain": list(self.chain),
            "findings": [{"problem": each.problem.value, "text": each.text} for each in self.findings],
        }


def inspect(material: Material, *, now: float, warn_days: float) -> Inspection:
    """Judge the client's certificate at `now` (epoch seconds). `material.certificate` must not be None."""
    try:
        shown = x509.load_pem_x509_certificates((material.certificate or "").encode())
    except ValueError:
        return Inspection(
            (Finding(Problem.DAMAGED, "the certificate cannot be read: have another one issued"),)
        )
    own = shown[0]
    findings = [*_about_time(own, "it", now, warn_days), *_about_key(own, material), *_about_use(own)]
    chain, trusted = [own], None
    try:
        anchors = x509.load_pem_x509_certificates(material.ca.encode()) if material.ca else []
    except ValueError:
        anchors = []
        trusted = False
        findings.append(Finding(Problem.DAMAGED, "the CA's certificate cannot be read: store it anew"))
    if anchors:
        found = _path(own, shown[1:], anchors, _LONGEST_CHAIN)
        trusted = found is not None
        if found is None:
            findings.append(
                Finding(
                    Problem.BROKEN_CHAIN,
                    f"nothing leads from its issuer ({_name(own.issuer)}) to a CA that is trusted: the intermediate "
                    "certificates are missing behind it, or another CA has issued it",
                )
            )
        else:
            chain = found
            for above in found[1:]:
                findings += _about_time(above, f"its issuer {_name(above.subject)}", now, warn_days)
    return Inspection(
        tuple(findings),
        subject=_name(own.subject),
        issuer=_name(own.issuer),
        serial=f"{own.serial_number:x}",
        not_before=iso(own.not_valid_before_utc.timestamp()),
        not_after=iso(own.not_valid_after_utc.timestamp()),
        days_left=_shown_days(_days(own, now)),
        key_matches=not any(finding.problem is Problem.KEY_MISMATCH for finding in findings),
        trusted=trusted,
        chain=tuple(_name(each.subject) for each in chain),
    )


def _days(certificate: x509.Certificate, now: float) -> float:
    return (certificate.not_valid_after_utc.timestamp() - now) / _DAY_SECONDS


def _shown_days(days: float) -> float:
    """Rounded down, so that what is shown is never more than what is judged."""
    return math.floor(days * 10) / 10


def _about_time(certificate: x509.Certificate, who: str, now: float, warn_days: float) -> list[Finding]:
    days = _days(certificate, now)
    if days <= 0:
        ended = certificate.not_valid_after_utc.date()
        return [Finding(Problem.EXPIRED, f"{who} has ended on {ended}: brokers refuse it")]
    if certificate.not_valid_before_utc > datetime.fromtimestamp(now, UTC):
        starts = iso(certificate.not_valid_before_utc.timestamp())
        return [Finding(Problem.NOT_YET_VALID, f"{who} is valid from {starts} only: brokers refuse it")]
    if days < warn_days:
        left = f"{_shown_days(days):g} days left, under {warn_days:g}"
        return [Finding(Problem.ENDS_SOON, f"{who} has {left}: renew it with `regworkers certs generate`")]
    return []


def _about_key(certificate: x509.Certificate, material: Material) -> list[Finding]:
    password = material.key_password.encode() if material.key_password else None
    try:
        key = load_pem_private_key((material.key or "").encode(), password)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return [
            Finding(
                Problem.DAMAGED, "the key cannot be read: it is damaged, or its password is missing or wrong"
            )
        ]

    def plain(public: Any) -> bytes:
        form: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return form

    if plain(key.public_key()) == plain(certificate.public_key()):
        return []
    return [Finding(Problem.KEY_MISMATCH, "the key belongs to another certificate: store both of one issue")]


def _about_use(certificate: x509.Certificate) -> list[Finding]:
    try:
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return []
    if ExtendedKeyUsageOID.CLIENT_AUTH in uses:
        return []
    return [Finding(Problem.WRONG_USE, "it is not meant for clients: the role in Vault needs client_flag")]


def _path(
    certificate: x509.Certificate,
    between: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    steps: int,
) -> list[x509.Certificate] | None:
    """From the certificate to one of the anchors, each issued by the next; None when there is no such way."""
    if certificate in anchors:
        return [certificate]
    if steps == 0:
        return None
    for issuer in (*anchors, *between):
        if issuer != certificate and _issued(issuer, certificate):
            rest = _path(issuer, [each for each in between if each != issuer], anchors, steps - 1)
            if rest is not None:
                return [certificate, *rest]
    return None


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
        return issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound):
        return False


def _name(name: x509.Name) -> str:
    return name.rfc4514_string()
