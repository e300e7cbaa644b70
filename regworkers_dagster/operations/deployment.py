"""What is deployed: `find_resources` compares AWS with what is declared after each deployment, and an asset inspects
Kafka's client certificate every day.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import orjson
from pydantic import Field

from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.defects import code_version
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings, config_file, masked
from regworkers_core.settings.documents import ENV_PREFIX
from regworkers_dagster.factories import Flow, asset_job, one_op_job, schedule
from regworkers_dagster.metadata import Metadata, facts_as_metadata, table
from regworkers_dagster.resources import TICK_CALL_SECONDS, plain_failures, runtime_of
from regworkers_dagster.runs import OPERATION_TAG, short_run

if TYPE_CHECKING:
    from regworkers_core.infrastructure.discovery.compare import Discovery
    from regworkers_core.operations.certificates import CertificateReport

# What one run shows of a long list; the command shows all.
_ROWS = 100


class FindConfig(dg.Config):
    """The defaults compare AWS with the settings alone."""

    terraform_file: str = Field(
        default="",
        description="Output of `terraform show -json`, where the run can read it. Empty: Terraform is left out.",
    )


@one_op_job(
    "find_resources",
    step="find",
    tags={OPERATION_TAG: "find-resources", **short_run()},
    uses={"aws"},
    call_seconds=TICK_CALL_SECONDS,
    description="Compares tables, queues, bucket, log groups, dashboards, alarms, policies and roles with what the "
    "settings declare. Run it after each deployment; it fails on a difference, as `regworkers aws find-resources` "
    "does.",
)
def find_resources(context: dg.OpExecutionContext, config: FindConfig, runtime: Runtime) -> None:
    """Compares AWS with what is declared; changes nothing."""
    from regworkers_core.infrastructure.discovery.compare import discover
    from regworkers_core.infrastructure.discovery.terraform import read_state

    state = read_state(Path(config.terraform_file)) if config.terraform_file else None
    found = discover(runtime, state)
    context.add_output_metadata(of_discovery(found))
    if found.differing or found.blind:
        raise dg.Failure(
            description=discovery_in_words(found),
            metadata=of_discovery(found),
            allow_retries=not found.differing,
        )


def of_discovery(found: "Discovery") -> Metadata:
    lines = [
        (line.kind.value, line.name, text)
        for line in found.lines
        for text in (*line.differences, *(f"could not read: {why}" for why in line.unread))
    ]
    lines += [(line.kind.value, line.name, "not declared") for line in found.strays]
    lines += [("", what, f"could not read: {why}") for what, why in found.unread.items()]
    rows = [(kind, f"`{name}`", text) for kind, name, text in lines[:_ROWS]]
    return facts_as_metadata(
        {
            "resources": len(found.lines),
            "differing": len(found.differing),
            "strays": len(found.strays),
            "could_not_read": found.blind,
            "report": table(("kind", "name", "difference"), rows),
        }
    )


def discovery_in_words(found: "Discovery") -> str:
    """One line for the run's page."""
    if found.empty:
        return f"no resource of {found.environment} exists: run `regworkers provision`, or deploy/terraform"
    if not found.differing:
        return "not everything could be read; the rest is as declared"
    names = ", ".join(line.name for line in found.differing[:5])
    return f"{len(found.differing)} resources differ from what is declared: {names}"


class NothingConfig(dg.Config):
    """Nothing to configure."""


@one_op_job(
    "show_config",
    step="show",
    tags={OPERATION_TAG: "show-config", **short_run()},
    uses={"aws"},
    description="Shows the settings that a run has where it is deployed, with secrets masked: the file that they come "
    "from, and the names of the variables that override it. `regworkers config show` shows those of a terminal.",
)
def show_config(context: dg.OpExecutionContext, config: NothingConfig, runtime: Runtime) -> None:
    """Shows the settings in force; changes nothing."""
    facts = settings_in_force(runtime.settings, os.environ)
    context.log.info(orjson.dumps(facts, option=orjson.OPT_INDENT_2).decode())
    context.add_output_metadata(facts_as_metadata(facts))


def settings_in_force(settings: Settings, environment: Mapping[str, str]) -> dict[str, Any]:
    """All settings, secrets as `***`, and where they come from. Of variables only the names are shown."""
    return {
        "environment": settings.environment,
        "file": str(config_file(settings.environment)),
        "variables": ", ".join(sorted(name for name in environment if name.startswith(ENV_PREFIX))),
        "code_version": code_version(),
        "settings": masked(settings),
    }


# An inspection without an answer is repeated within the hour, not on the next day.
_AGAIN = dg.RetryPolicy(max_retries=3, delay=60, backoff=dg.Backoff.EXPONENTIAL)

KAFKA_CERTIFICATE = Flow("certificates", owner="operations").asset(
    "kafka_certificate",
    "The client certificate with which this environment's workers connect to Kafka. Inspected daily: one "
    "materialisation with its days left. docs/certificates.md says how to renew it.",
    {"kafka"},
)
DAYS_LEFT = dg.AssetCheckSpec(
    "certificate_days_left",
    asset=KAFKA_CERTIFICATE.key,
    description="At least `certificates.warnDays` (20) are left, the key belongs to it, its chain leads to the CA, and "
    "it is valid now.",
)


@dg.multi_asset(
    name="inspect_certificate",
    specs=[KAFKA_CERTIFICATE],
    check_specs=[DAYS_LEFT],
    retry_policy=_AGAIN,
    can_subset=False,
    required_resource_keys={"aws", "kafka"},
)
def inspect_certificate(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
    """Read and check it. The sensor of alerts notifies, at any time of the day."""
    from regworkers_core.operations.certificates import RenewalState

    with plain_failures():
        report = _report(runtime_of(context))
    for text in [report.error] if report.error else _findings(report):
        context.log.warning(text)
    metadata = _certificate_metadata(report)
    check = dg.AssetCheckResult(
        check_name=DAYS_LEFT.name,
        asset_key=KAFKA_CERTIFICATE.key,
        passed=report.state in (RenewalState.FINE, RenewalState.NONE),
        severity=dg.AssetCheckSeverity.WARN,
        metadata=metadata,
    )
    yield dg.MaterializeResult(asset_key=KAFKA_CERTIFICATE.key, metadata=metadata, check_results=[check])


def _report(runtime: Runtime) -> "CertificateReport":
    """The certificate's state. One that is configured and missing is a finding, not a failure of the run."""
    from regworkers_core.operations.certificates import CertificateReport, RenewalState, check_certificate

    environment = runtime.settings.environment
    try:
        return check_certificate(runtime, environment)
    except UsageError as error:
        return CertificateReport(environment, RenewalState.UNREADABLE, error=str(error))


def _certificate_metadata(report: "CertificateReport") -> Metadata:
    found = report.inspection
    facts: dict[str, Any] = {"state": report.state.value, "error": report.error}
    if found is not None:
        facts |= {"subject": found.subject or None, "not_after": found.not_after or None}
        facts |= {"issued_by": " < ".join(found.chain[1:]) or None, "days_left": found.days_left}
        facts["findings"] = _findings(report) or None
    return facts_as_metadata(facts)


def _findings(report: "CertificateReport") -> list[str]:
    return [finding.text for finding in report.inspection.findings] if report.inspection else []


CHECK_CERTIFICATE = asset_job(
    "check_certificate",
    dg.AssetSelection.assets(inspect_certificate),
    tags={OPERATION_TAG: "certificates", **short_run()},
    description="Inspects Kafka's client certificate: days left, key, chain. Under 20 days (certificates.warnDays) its "
    "check warns; `regworkers certs check` shows the same for all environments.",
)
SCHEDULES = (
    schedule(
        "check_certificate_daily",
        CHECK_CERTIFICATE,
        # In working hours of Europe, when it can be renewed.
        "0 7 * * *",
        "Inspects Kafka's client certificate once a day.",
    ),
)
