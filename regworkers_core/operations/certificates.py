"""Kafka's client certificates: inspect one, check those of all environments, verify and store a new one.

`inspect` reads bytes alone (days left, key, chain, use); `check_*` read the material of environments; `verified` and
`store` take a certificate that Vault has issued.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, get_args

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from fairdraw.documents import as_document
from regworkers_core.adapters.kafka.security import Material
from regworkers_core.adapters.vault import Issued
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.snapshot import CertificateState
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.dependency_status import with_short_timeouts
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Environment, settings_of

_DAY_SECONDS = 86_400
_RENEW = "renew it with `regworkers certs generate`"
# Longer than any valid chain.
_LONGEST_CHAIN = 10


class CertificateProblem(StrEnum):
    DAMAGED = "DAMAGED"
    EXPIRED = "EXPIRED"
    NOT_YET_VALID = "NOT_YET_VALID"
    ENDS_SOON = "ENDS_SOON"
    KEY_MISMATCH = "KEY_MISMATCH"
    BROKEN_CHAIN = "BROKEN_CHAIN"
    WRONG_USE = "WRONG_USE"


@dataclass(frozen=True, slots=True)
class CertificateFinding:
    """`text` says what is wrong and what to do; it contains no secret."""

    problem: CertificateProblem
    text: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is known about a certificate; only findings if it cannot be read."""

    # What is wrong with it.
    findings: tuple[CertificateFinding, ...]
    # The name of the client.
    subject: str | None = None
    # The name of the CA that signed it.
    issuer: str | None = None
    # Its number, in hex.
    serial: str | None = None
    # The begin of its validity.
    not_before: str | None = None
    # The end of its validity.
    not_after: str | None = None
    # Negative once it has expired.
    days_left: float | None = None
    # Whether the private key is that of the certificate.
    key_matches: bool | None = None
    # Whether the CA is the given one; None if none was given.
    trusted: bool | None = None
    # Subjects from the client's up to the trusted CA.
    chain: tuple[str, ...] = field(default=())

    def has(self, *problems: CertificateProblem) -> bool:
        return any(finding.problem in problems for finding in self.findings)


def inspect(material: Material, *, now: float, warn_days: float) -> Inspection:
    """Inspect the client's certificate at `now` (epoch seconds). `material.certificate` must not be None."""
    try:
        shown = x509.load_pem_x509_certificates((material.certificate or "").encode())
    except ValueError:
        return Inspection(
            (
                CertificateFinding(
                    CertificateProblem.DAMAGED,
                    "the certificate cannot be parsed: issue a new one",
                ),
            )
        )
    own = shown[0]
    findings = [*_about_time(own, "it", now, warn_days), *_about_key(own, material), *_about_use(own)]
    chain, trusted = [own], None
    try:
        anchors = x509.load_pem_x509_certificates(material.ca.encode()) if material.ca else []
    except ValueError:
        anchors = []
        trusted = False
        findings.append(
            CertificateFinding(
                CertificateProblem.DAMAGED, "the CA's certificate cannot be parsed: store it again"
            )
        )
    if anchors:
        found = _path(own, shown[1:], anchors, _LONGEST_CHAIN)
        trusted = found is not None
        if found is None:
            findings.append(
                CertificateFinding(
                    CertificateProblem.BROKEN_CHAIN,
                    f"no chain leads from its issuer ({_name(own.issuer)}) to a trusted CA: intermediate certificates "
                    "are missing, or another CA issued it",
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
        key_matches=not any(finding.problem is CertificateProblem.KEY_MISMATCH for finding in findings),
        trusted=trusted,
        chain=tuple(_name(each.subject) for each in chain),
    )


def _days(certificate: x509.Certificate, now: float) -> float:
    return (certificate.not_valid_after_utc.timestamp() - now) / _DAY_SECONDS


def _shown_days(days: float) -> float:
    """Rounded down, so that it never shows more than is left."""
    return math.floor(days * 10) / 10


def _about_time(
    certificate: x509.Certificate, who: str, now: float, warn_days: float
) -> list[CertificateFinding]:
    days = _days(certificate, now)
    if days <= 0:
        ended = certificate.not_valid_after_utc.date()
        return [CertificateFinding(CertificateProblem.EXPIRED, f"{who} expired on {ended}: {_RENEW}")]
    if certificate.not_valid_before_utc > datetime.fromtimestamp(now, UTC):
        starts = iso(certificate.not_valid_before_utc.timestamp())
        return [
            CertificateFinding(
                CertificateProblem.NOT_YET_VALID, f"{who} is not valid before {starts}: brokers refuse it"
            )
        ]
    if days < warn_days:
        left = f"{_shown_days(days):g} days left, under {warn_days:g}"
        return [CertificateFinding(CertificateProblem.ENDS_SOON, f"{who} has {left}: {_RENEW}")]
    return []


def _about_key(certificate: x509.Certificate, material: Material) -> list[CertificateFinding]:
    password = material.key_password.encode() if material.key_password else None
    try:
        key = load_pem_private_key((material.key or "").encode(), password)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return [
            CertificateFinding(
                CertificateProblem.DAMAGED,
                "the key cannot be parsed: it is damaged, or its password is missing or wrong",
            )
        ]

    def plain(public: Any) -> bytes:
        form: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return form

    if plain(key.public_key()) == plain(certificate.public_key()):
        return []
    return [
        CertificateFinding(
            CertificateProblem.KEY_MISMATCH,
            "the key belongs to another certificate: store those of one issue",
        )
    ]


def _about_use(certificate: x509.Certificate) -> list[CertificateFinding]:
    try:
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return []
    if ExtendedKeyUsageOID.CLIENT_AUTH in uses:
        return []
    return [
        CertificateFinding(
            CertificateProblem.WRONG_USE, "it is not issued for clients: the role in Vault needs client_flag"
        )
    ]


def _path(
    certificate: x509.Certificate,
    between: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    steps: int,
) -> list[x509.Certificate] | None:
    """The chain from the certificate to one of the anchors, each issued by the next; None if there is none."""
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


ENVIRONMENTS: tuple[Environment, ...] = get_args(Environment)


class RenewalState(StrEnum):
    FINE = "fine"
    FINDING = "finding"
    # No certificate is configured, and Kafka is used without one.
    NONE = "none"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class CertificateReport:
    """The certificate of one environment."""

    environment: str
    # What is to be done.
    state: RenewalState
    # Where it is stored.
    place: str | None = None
    # What is known about it.
    inspection: Inspection | None = None
    # Why it could not be read.
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        found = as_document(self.inspection) if self.inspection else {"findings": []}
        return as_document(self, "environment", "state", "place", "error") | found


def check_environments(
    environments: Sequence[Environment], *, warn_days: float | None = None
) -> list[CertificateReport]:
    """One report for each, in the same order. An environment that cannot be read does not stop the others."""

    def check(environment: Environment) -> CertificateReport:
        try:
            runtime = Runtime(with_short_timeouts(settings_of(environment)))
            return check_own(runtime, warn_days=warn_days)
        except (UsageError, TransientFailure) as error:
            return CertificateReport(environment, RenewalState.UNREADABLE, error=str(error))

    with ThreadPoolExecutor(len(environments), thread_name_prefix="certificates") as pool:
        return list(pool.map(check, environments))


def check_own(runtime: Runtime, *, warn_days: float | None = None) -> CertificateReport:
    """The report on the runtime's environment. Raises TransientFailure: who asks may ask again."""
    environment = runtime.settings.environment
    try:
        return check_certificate(runtime, environment, warn_days=warn_days)
    except UsageError as error:
        return CertificateReport(environment, RenewalState.UNREADABLE, error=str(error))


def check_certificate(
    runtime: Runtime, environment: str, *, warn_days: float | None = None
) -> CertificateReport:
    """Check the runtime's environment. Raises UsageError and TransientFailure if the material cannot be read."""
    security = runtime.kafka_security
    if not security.shows_certificate:
        return CertificateReport(environment, RenewalState.NONE)
    material, place = security.material(), security.place("certificate")
    days = runtime.settings.certificates.warn_days if warn_days is None else warn_days
    inspection = inspect(material, now=runtime.clock(), warn_days=days)
    state = RenewalState.FINDING if inspection.findings else RenewalState.FINE
    return CertificateReport(environment, state, place, inspection)


# The choices of `certs generate`, and the CI variable of each environment.
CHOICES: Mapping[str, Environment] = {"qa/dev": "qa", "preprod": "preprod", "prod": "prod"}
CI_VARIABLES: Mapping[Environment, str] = {
    "qa": "nonprod_kafka_cert",
    "preprod": "preprod_kafka_cert",
    "prod": "prod_kafka_cert",
}
_DESCRIPTION = "Client certificate of the registration workers for Kafka, with its key."


@dataclass(frozen=True, slots=True)
class RenewalPlan:
    """The request to Vault, before it is sent."""

    environment: Environment
    # The address of Vault.
    vault: str
    path: str
    common_name: str
    # How long it will be valid, as Vault writes it.
    ttl: str


def plan(runtime: Runtime, environment: Environment) -> RenewalPlan:
    """Raises UsageError when Vault is not configured."""
    vault = runtime.settings.vault
    if not vault.address:
        raise UsageError(
            f"Vault has no address for {environment}: set vault.address or REGWORKERS_VAULT__ADDRESS"
        )
    name = vault.common_name.format(environment=environment)
    return RenewalPlan(environment, vault.address, f"{vault.mount}/issue/{vault.role}", name, vault.ttl)


def secrets_of(runtime: Runtime) -> list[str]:
    """Names of the secrets of certificate and key, without the prefix; only one for a key stored with the certificate.

    Raises UsageError if the settings name none.
    """
    tls = runtime.settings.kafka.tls
    if not tls.certificate_secret:
        raise UsageError(
            "kafka.tls.certificateSecret names no secret to write to: set it, or take the PEM with --to ci"
        )
    return [tls.certificate_secret, *filter(None, [tls.key_secret])]


def verified(runtime: Runtime, issued: Issued) -> Inspection:
    """Check key, chain, use and days of a new certificate. Raises UsageError with everything that is wrong.

    Its chain must lead to the CA that Vault names, and to the CA that the environment trusts if that can be read.
    """
    warn_days = runtime.settings.certificates.warn_days
    ours = issued.chain[-1] if issued.chain else None
    inspection = inspect(Material(issued.shown, issued.key, ours), now=runtime.clock(), warn_days=warn_days)
    wrong = [
        _ask_for_longer(each.text) if each.problem is CertificateProblem.ENDS_SOON else each.text
        for each in inspection.findings
    ]
    trusted = _trusted(runtime)
    if trusted is not None and not wrong:
        inspection = inspect(
            Material(issued.shown, issued.key, trusted), now=runtime.clock(), warn_days=warn_days
        )
        wrong = [f"{each.text} (the CA of kafka.tls)" for each in inspection.findings]
    if wrong:
        raise UsageError(
            "the certificate that Vault issued is not valid, and is not stored: " + "; ".join(wrong)
        )
    return inspection


def store(runtime: Runtime, issued: Issued) -> list[str]:
    """Store certificate and key; the secrets keep their previous versions. Returns the names of the secrets.

    The key is written first: workers that read between the two writes find a pair that does not match, and wait.
    """
    certificate, *others = secrets_of(runtime)
    if not others:
        runtime.secrets.put(certificate, issued.bundle, description=_DESCRIPTION)
        return [runtime.names.prefix + certificate]
    (key,) = others
    runtime.secrets.put(key, issued.key, description=_DESCRIPTION)
    runtime.secrets.put(certificate, issued.shown, description=_DESCRIPTION)
    return [runtime.names.prefix + key, runtime.names.prefix + certificate]


def _trusted(runtime: Runtime) -> str | None:
    try:
        return runtime.kafka_security.ca()
    except (UsageError, TransientFailure):
        return None


def _ask_for_longer(text: str) -> str:
    return text.partition(": ")[0] + ": set a longer vault.ttl, or have the role's max_ttl raised"


def certificate_state(environment: str, report: CertificateReport) -> CertificateState:
    """What alerts and the doctor know of a checked certificate."""
    found = report.inspection
    if found is None:
        return CertificateState(environment, None)
    of_age = (CertificateProblem.ENDS_SOON, CertificateProblem.EXPIRED)
    troubles = [each.text for each in found.findings if each.problem not in of_age]
    # With these no new connection is possible.
    unusable = found.has(
        CertificateProblem.DAMAGED, CertificateProblem.NOT_YET_VALID, CertificateProblem.KEY_MISMATCH
    )
    return CertificateState(
        environment, found.days_left, found.subject or "", " and ".join(troubles), unusable
    )
