"""Kafka's client certificate: one that expires soon, cannot be used, or was renewed and is refused."""

from __future__ import annotations

from collections.abc import Iterator

from regworkers_core.domain.alert import Severity
from regworkers_core.domain.snapshot import CertificateState, Unread
from regworkers_core.operations.alerts.conditions.condition import Assessment, Context, Finding

RENEWED = "kafka"


def certificates(context: Context) -> Assessment | Unread:
    """One finding for each certificate that expires soon, and one for each that has a problem."""
    read = context.snapshot.certificates
    if isinstance(read, Unread):
        return read
    return Assessment(tuple(finding for each in read for finding in _of_certificate(context, each)))


def _of_certificate(context: Context, found: CertificateState) -> Iterator[Finding]:
    limits, days = context.settings.certificates, found.days_left
    mild = context.severity.certificates
    severe = Severity.worst((mild, context.severity.certificates_critical))
    if days is not None and days < limits.warn_days:
        expires = "has expired" if days < 0 else f"expires in {days:.1f} days"
        yield Finding(
            f"{found.environment}-ends",
            severe if days < limits.critical_days else mild,
            f"the Kafka certificate of {found.environment} {expires}, under {limits.warn_days:g}: "
            "`regworkers certs generate` issues a new one",
            {"daysLeft": round(days, 2), "subject": found.subject},
        )
    if found.trouble:
        yield Finding(
            f"{found.environment}-trouble",
            severe if found.unusable else mild,
            f"the Kafka certificate of {found.environment}: {found.trouble}",
            {"subject": found.subject},
        )


def renewal(_: Context) -> Assessment:
    """Leaves the incident as it is: a snapshot does not show what brokers refuse. A running producer opens and closes
    it (`evaluate.watch_renewals`).
    """
    return Assessment(early=frozenset({RENEWED}))
