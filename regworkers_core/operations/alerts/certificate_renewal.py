"""A renewed certificate that the brokers refuse. What a certificate itself is like, the conditions judge."""

from __future__ import annotations

from regworkers_core.domain.alert import Alert
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.operations.alerts.notifier import alerting
from regworkers_core.runtime import Runtime

# Only a process that produces sees it.
RENEWAL_SCOPE = "certificate-renewal"
RUNBOOK = "certificates.md"


def watch_renewals(runtime: Runtime) -> None:
    """From here on, a renewed certificate that the brokers refuse is an incident, until one is taken up. Only where
    material may change; whoever produces calls it once.
    """
    credentials = runtime.kafka_credentials
    if not credentials.may_change:
        return

    def tell(refused: str | None) -> None:
        summary = f"the newest Kafka certificate is not taken up, the one before stays in use: {refused}"
        severity = runtime.settings.alerts.severity.certificate_renewal
        held = [Alert(f"{RENEWAL_SCOPE}:kafka", severity, summary, RUNBOOK)] if refused else []
        try:
            alerting(runtime).settle(RENEWAL_SCOPE, held)
        except TransientFailure:
            # Told again at the next look, which is soon.
            return

    credentials.watcher = tell
