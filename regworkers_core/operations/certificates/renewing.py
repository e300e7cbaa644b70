"""Another certificate: issued by Vault, verified, then put where the environment's workers find it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regworkers_core.adapters.kafka.security import Material
from regworkers_core.adapters.vault import Issued
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.operations.certificates.inspection import Inspection, Problem, inspect
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Environment

# As they are chosen by, and the CI variable of each.
CHOICES: Mapping[str, Environment] = {"qa/dev": "qa", "preprod": "preprod", "prod": "prod"}
CI_VARIABLES: Mapping[Environment, str] = {
    "qa": "nonprod_kafka_cert",
    "preprod": "preprod_kafka_cert",
    "prod": "prod_kafka_cert",
}
_DESCRIPTION = "Client certificate of the registration workers for Kafka, with its key."


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of whom, before anything is asked."""

    environment: Environment
    address: str
    path: str
    common_name: str
    ttl: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "environment": self.environment,
            "vault": self.address,
            "path": self.path,
            "commonName": self.common_name,
            "ttl": self.ttl,
        }


def plan(runtime: Runtime, environment: Environment) -> Plan:
    """Raises UsageError when Vault is not configured."""
    vault = runtime.settings.vault
    if not vault.address:
        raise UsageError(
            f"Vault has no address for {environment}: set vault.address or REGWORKERS_VAULT__ADDRESS"
        )
    name = vault.common_name.format(environment=environment)
    return Plan(environment, vault.address, f"{vault.mount}/issue/{vault.role}", name, vault.ttl)


def secrets_of(runtime: Runtime) -> tuple[str, str | None]:
    """Names of the secrets of certificate and key, under the prefix; of the key None when it lies with the certificate.

    Raises UsageError when the settings name none.
    """
    tls = runtime.settings.kafka.tls
    if not tls.certificate_secret:
        raise UsageError(
            "kafka.tls.certificateSecret names no secret to write to: set it, or take the PEM with --to ci"
        )
    return tls.certificate_secret, tls.key_secret or None


def verified(runtime: Runtime, issued: Issued) -> Inspection:
    """That key, chain, use and days are right. Raises UsageError with all that is wrong.

    It has to lead to the CA that Vault names, and to the one that the environment trusts where that can be read.
    """
    warn_days = runtime.settings.certificates.warn_days
    ours = issued.chain[-1] if issued.chain else None
    inspection = inspect(Material(issued.shown, issued.key, ours), now=runtime.clock(), warn_days=warn_days)
    wrong = [
        _ask_for_longer(each.text) if each.problem is Problem.ENDS_SOON else each.text
        for each in inspection.findings
    ]
    trusted = _trusted(runtime)
    if trusted is not None and not wrong:
        inspection = inspect(
            Material(issued.shown, issued.key, trusted), now=runtime.clock(), warn_days=warn_days
        )
        wrong = [f"{each.text} (the CA of kafka.tls)" for each in inspection.findings]
    if wrong:
        raise UsageError("what Vault has issued is not written anywhere: " + "; ".join(wrong))
    return inspection


def store(runtime: Runtime, issued: Issued) -> list[str]:
    """Write it; what stood there stays as the previous version. Returns the names of the secrets.

    The key goes first: workers that look between the two writes find a pair that does not match, and wait.
    """
    certificate, key = secrets_of(runtime)
    if key is None:
        runtime.secrets.put(certificate, issued.bundle, description=_DESCRIPTION)
        return [runtime.names.prefix + certificate]
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
