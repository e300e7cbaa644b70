"""The certificates of all environments whose material can be read from here; the others are named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, get_args

from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.operations.certificates.inspection import Inspection, inspect
from regworkers_core.operations.health.dependency_status import with_short_timeouts
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Environment, Settings, settings_of

ENVIRONMENTS: tuple[Environment, ...] = get_args(Environment)


class State(StrEnum):
    FINE = "fine"
    FINDING = "finding"
    # No certificate is configured: there Kafka is spoken without one.
    NONE = "none"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class CertificateReport:
    """Of one environment. `error` says why it could not be read; `place` where the certificate lies."""

    environment: str
    state: State
    place: str | None = None
    inspection: Inspection | None = None
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "environment": self.environment,
            "state": self.state.value,
            "place": self.place,
            "error": self.error,
        }
        return document | (self.inspection.as_dict() if self.inspection else {"findings": []})


def check_environments(
    environments: Sequence[Environment],
    *,
    settings: Callable[[Environment], Settings] = settings_of,
    warn_days: float | None = None,
) -> list[CertificateReport]:
    """One report each, in their order; none keeps the others from being read."""

    def check(environment: Environment) -> CertificateReport:
        try:
            runtime = Runtime(with_short_timeouts(settings(environment)))
            return check_certificate(runtime, environment, warn_days=warn_days)
        except (UsageError, TransientFailure) as error:
            return CertificateReport(environment, State.UNREADABLE, error=str(error))

    with ThreadPoolExecutor(len(environments), thread_name_prefix="certificates") as pool:
        return list(pool.map(check, environments))


def check_certificate(
    runtime: Runtime, environment: str, *, warn_days: float | None = None
) -> CertificateReport:
    """Of the runtime's environment. Raises UsageError and TransientFailure for material that cannot be read."""
    security = runtime.kafka_security
    if not security.shows_certificate:
        return CertificateReport(environment, State.NONE)
    material, place = security.material(), security.place("certificate")
    days = runtime.settings.certificates.warn_days if warn_days is None else warn_days
    inspection = inspect(material, now=runtime.clock(), warn_days=days)
    state = State.FINDING if inspection.findings else State.FINE
    return CertificateReport(environment, state, place, inspection)
