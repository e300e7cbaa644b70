"""From a report to the alerts that hold: who is told, and when somebody is woken up."""

from __future__ import annotations

from regworkers_core.alerting import alerting
from regworkers_core.domain.alert import Alert, Severity
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.operations.certificates.checking import CertificateReport, State
from regworkers_core.operations.certificates.inspection import Problem
from regworkers_core.runtime import Runtime

SCOPE = "certificates"
# A scope of its own: whoever watches one must not close what the other has opened.
RENEWAL_SCOPE = "certificate-renewal"
RUNBOOK = "certificates.md"
# With these no new connection is made.
_OUT_OF_ORDER = (Problem.DAMAGED, Problem.NOT_YET_VALID, Problem.KEY_MISMATCH)


def alerts_of(report: CertificateReport, *, critical_days: float) -> list[Alert]:
    """Warnings and what is critical have keys of their own: an incident is told once, and this one gets worse."""
    if report.state is State.UNREADABLE:
        return [_alert("unreadable", Severity.WARNING, f"Kafka certificate not readable: {report.error}")]
    found = report.inspection
    if found is None:
        return []
    held = []
    days = found.days_left
    if days is not None and found.has(Problem.ENDS_SOON, Problem.EXPIRED):
        details = {"daysLeft": days, "notAfter": found.not_after, "subject": found.subject}
        text = " and ".join(
            each.text for each in found.findings if each.problem in (Problem.ENDS_SOON, Problem.EXPIRED)
        )
        held.append(_alert("ends-soon", Severity.WARNING, f"Kafka certificate: {text}", **details))
        if days < critical_days or found.has(Problem.EXPIRED):
            held.append(_alert("ends-now", Severity.CRITICAL, f"Kafka certificate: {text}", **details))
    others = [each for each in found.findings if each.problem not in (Problem.ENDS_SOON, Problem.EXPIRED)]
    if others:
        severity = Severity.CRITICAL if found.has(*_OUT_OF_ORDER) else Severity.WARNING
        text = " and ".join(each.text for each in others)
        held.append(_alert("out-of-order", severity, f"Kafka certificate: {text}"))
    return held


def settle(runtime: Runtime, report: CertificateReport) -> list[Alert]:
    """Open and close the incidents of the scope; returns what holds. Raises TransientFailure when MongoDB is away."""
    held = alerts_of(report, critical_days=runtime.settings.certificates.critical_days)
    alerting(runtime).settle(SCOPE, held)
    return held


def watch_renewals(runtime: Runtime) -> None:
    """From here on, a renewed certificate that the brokers refuse is an incident, until one is taken up. Only where
    material may change; whoever produces calls it once.
    """
    credentials = runtime.kafka_credentials
    if not credentials.may_change:
        return

    def tell(refused: str | None) -> None:
        summary = f"the newest Kafka certificate is not taken up, the one before stays in use: {refused}"
        held = [Alert(f"{RENEWAL_SCOPE}:kafka", Severity.WARNING, summary, RUNBOOK)] if refused else []
        try:
            alerting(runtime).settle(RENEWAL_SCOPE, held)
        except TransientFailure:
            # Told again at the next look, which is soon.
            return

    credentials.watcher = tell


def _alert(what: str, severity: Severity, summary: str, **details: object) -> Alert:
    return Alert(f"{SCOPE}:kafka-{what}", severity, summary, RUNBOOK, details)
