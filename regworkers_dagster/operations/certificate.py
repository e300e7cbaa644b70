"""The certificate as an asset: one materialisation a day with its days left, and a check."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

from collections.abc import Iterator
from typing import Any

import dagster as dg

from regworkers_core.domain.reasons import UsageError
from regworkers_core.operations.certificates.checking import CertificateReport, State, check_certificate
from regworkers_core.runtime import Runtime
from regworkers_dagster.resources import Workers, plain_failures
from regworkers_dagster.tags import OPERATION_TAG, short_run

# A look that failed because somebody did not answer is repeated within the hour, not on the next day.
_AGAIN = dg.RetryPolicy(max_retries=3, delay=60, backoff=dg.Backoff.EXPONENTIAL)

KAFKA_CERTIFICATE = dg.AssetSpec(
    "kafka_certificate",
    description="The client certificate with which this environment's workers speak to Kafka. Looked at daily: one "
    "materialisation with its days left. docs/certificates.md says how it is renewed.",
    kinds={"kafka"},
    group_name="certificates",
    owners=["team:operations"],
    tags={"regworkers/flow": "certificates"},
)
DAYS_LEFT = dg.AssetCheckSpec(
    "certificate_days_left",
    asset=KAFKA_CERTIFICATE.key,
    description="At least `certificates.warnDays` (20) are left, the key belongs to it, its chain leads to the CA, and "
    "it is valid now.",
)


@dg.multi_asset(
    name="look_at_certificate",
    specs=[KAFKA_CERTIFICATE],
    check_specs=[DAYS_LEFT],
    retry_policy=_AGAIN,
    can_subset=False,
)
def look_at_certificate(
    context: dg.AssetExecutionContext, workers: Workers
) -> Iterator[dg.MaterializeResult[None]]:
    """Read it, judge it. Whoever has to know is told by the sensor of alerts, which looks all day."""
    with plain_failures():
        report = _report(workers.runtime)
    for text in [report.error] if report.error else _findings(report):
        context.log.warning(text)
    metadata = _metadata(report)
    check = dg.AssetCheckResult(
        check_name=DAYS_LEFT.name,
        asset_key=KAFKA_CERTIFICATE.key,
        passed=report.state in (State.FINE, State.NONE),
        severity=dg.AssetCheckSeverity.WARN,
        metadata=metadata,
    )
    yield dg.MaterializeResult(asset_key=KAFKA_CERTIFICATE.key, metadata=metadata, check_results=[check])


def _report(runtime: Runtime) -> CertificateReport:
    """A certificate that is named and not there is what people have to hear of, so it is no failure of the run."""
    environment = runtime.settings.environment
    try:
        return check_certificate(runtime, environment)
    except UsageError as error:
        return CertificateReport(environment, State.UNREADABLE, error=str(error))


def _metadata(report: CertificateReport) -> dict[str, Any]:
    found = report.inspection
    numbers: dict[str, Any] = {"state": report.state.value}
    if report.error is not None:
        numbers["error"] = report.error
    if found is None:
        return numbers
    texts = {"subject": found.subject, "not_after": found.not_after, "issued_by": " < ".join(found.chain[1:])}
    numbers |= {name: text for name, text in texts.items() if text}
    if found.days_left is not None:
        numbers["days_left"] = dg.MetadataValue.float(found.days_left)
    if found.findings:
        numbers["findings"] = _findings(report)
    return numbers


def _findings(report: CertificateReport) -> list[str]:
    return [finding.text for finding in report.inspection.findings] if report.inspection else []


CHECK_CERTIFICATE = dg.define_asset_job(
    "check_certificate",
    selection=dg.AssetSelection.assets(look_at_certificate),
    tags={OPERATION_TAG: "certificates", **short_run()},
    executor_def=dg.in_process_executor,
    description="Looks at Kafka's client certificate: days left, key, chain. Under 20 days (certificates.warnDays) it "
    "its check warns; `regworkers certs check` shows the same for all environments.",
)


def build_schedules(*, on: bool) -> list[dg.ScheduleDefinition]:
    """`on` makes them run without being switched on in the UI."""
    return [
        dg.ScheduleDefinition(
            name="check_certificate_daily",
            job=CHECK_CERTIFICATE,
            # In working hours of Europe, so that whoever renews it is there.
            cron_schedule="0 7 * * *",
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus.RUNNING if on else dg.DefaultScheduleStatus.STOPPED,
            description="Looks at Kafka's client certificate every morning and warns under 20 days.",
        )
    ]
