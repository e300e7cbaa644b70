"""What lies still: the replica against its source, and certificates."""

from __future__ import annotations

from regworkers_core.domain.alert import Severity
from regworkers_core.domain.snapshot import CertificateState, Unread
from regworkers_core.operations.alerts.conditions.condition import Finding, Given, Judgement

# A class that is no difference so far.
_NOT_YET = "not_yet"
_REPLICA = "replica"


def drift(given: Given) -> Judgement | Unread:
    """At most one finding: what the last reconcile found."""
    parity = given.snapshot.parity
    if isinstance(parity, Unread):
        return parity
    if parity is None:
        # Never compared.
        return Judgement(early=frozenset({_REPLICA}))
    found = {kind: count for kind, count in sorted(parity.differences.items()) if count and kind != _NOT_YET}
    total = sum(found.values())
    limits, severity = given.settings.alerts, given.severity.drift
    if total < limits.drift_entries:
        return Judgement()
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.items())
    if total >= limits.drift_critical:
        severity = Severity.worst((severity, given.severity.drift_critical))
    finding = Finding(
        _REPLICA,
        severity,
        f"the replica differs from its source in {total} entries: {kinds}",
        {**found, "comparedAt": parity.at},
    )
    return Judgement((finding,))


def certificates(given: Given) -> Judgement | Unread:
    """One finding for each certificate that ends soon, and one for each that is out of order."""
    read = given.snapshot.certificates
    if isinstance(read, Unread):
        return read
    return Judgement(tuple(finding for each in read for finding in _of_certificate(given, each)))


def _of_certificate(given: Given, found: CertificateState) -> list[Finding]:
    limits, days = given.settings.certificates, found.days_left
    mild = given.severity.certificates
    severe = Severity.worst((mild, given.severity.certificates_critical))
    findings = []
    if days is not None and days < limits.warn_days:
        ends = "has ended" if days < 0 else f"ends in {days:.1f} days"
        findings.append(
            Finding(
                f"{found.environment}-ends",
                severe if days < limits.critical_days else mild,
                f"the Kafka certificate of {found.environment} {ends}, under {limits.warn_days:g}: "
                "`regworkers certs generate` makes another one",
                {"daysLeft": round(days, 2), "subject": found.subject},
            )
        )
    if found.trouble:
        findings.append(
            Finding(
                f"{found.environment}-trouble",
                severe if found.unusable else mild,
                f"the Kafka certificate of {found.environment}: {found.trouble}",
                {"subject": found.subject},
            )
        )
    return findings
