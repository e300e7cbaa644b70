"""What Terraform reads: one file for each environment, written from the settings and `regworkers_core/infrastructure`.

`make deploy-files` runs this module. These files are not committed, unlike the manifests of `tools.residents`; the
release archive contains them all.
"""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from regworkers_core.infrastructure.alarms import alarms
from regworkers_core.infrastructure.board import board, board_name, saved_queries
from regworkers_core.infrastructure.desired import LIFECYCLES, desired
from regworkers_core.infrastructure.policies.platform import SERVICE_ACCOUNTS, all_policies, policy_name
from regworkers_core.infrastructure.policies.statement import PLACEHOLDERS
from regworkers_core.settings import PROJECT_ROOT, Environment, Settings, settings_of
from tools.residents import write_residents

FOLDER = PROJECT_ROOT / "deploy" / "generated"
ENVIRONMENTS: tuple[Environment, ...] = ("qa", "preprod", "prod")


def document(settings: Settings) -> dict[str, Any]:
    """Values and names as Terraform's providers call them. Policies have placeholders for account and log bucket."""
    wanted = desired(settings)
    prefix = settings.names.prefix
    # Keys are the addresses of Terraform's resources: the names without the environment's prefix.
    return {
        "prefix": prefix,
        "region": settings.aws.region,
        "bucket": wanted.bucket.name,
        "bucket_policy": wanted.bucket.policy,
        "run_retention_days": settings.observability.run_retention_days,
        "lifecycles": {
            lifecycle.rule()["ID"]: {
                "prefix": lifecycle.prefix,
                "abort_days": [lifecycle.abort_days] if lifecycle.abort_days else [],
                "replaced_days": [lifecycle.replaced_days] if lifecycle.replaced_days else [],
                "expire_days": [lifecycle.expire_days] if lifecycle.expire_days else [],
            }
            for lifecycle in LIFECYCLES
        },
        "tables": {
            table.name.removeprefix(prefix): {
                "stream_view": table.stream_view or None,
                "ttl": [table.ttl_attribute] if table.ttl_attribute else [],
                "point_in_time_recovery": table.point_in_time_recovery,
                "deletion_protection": table.deletion_protection,
            }
            for table in wanted.tables
            if not table.external
        },
        "dead_letter_queues": {
            queue.name.removeprefix(prefix): {
                "retention_seconds": queue.retention_seconds,
                "max_message_bytes": queue.max_message_bytes,
            }
            for queue in wanted.queues
            if not queue.dead_letter_queue
        },
        "queues": {
            queue.name.removeprefix(prefix): {
                "retention_seconds": queue.retention_seconds,
                "max_message_bytes": queue.max_message_bytes,
                "visibility_seconds": queue.visibility_seconds,
                "dead_letter_queue": queue.dead_letter_queue.removeprefix(prefix),
                "max_receives": queue.max_receives,
            }
            for queue in wanted.queues
            if queue.dead_letter_queue
        },
        "log_group": {"name": wanted.log_group.name, "retention_days": wanted.log_group.retention_days},
        "function": {
            "name": wanted.function.name,
            "handler": wanted.function.handler,
            "runtime": wanted.function.runtime,
            "timeout_seconds": wanted.function.timeout_seconds,
            "alias": wanted.function.alias,
            "environment": dict(wanted.function.environment),
            "policy": policy_name(wanted.function.role),
            "network_policy": wanted.function.network_policy,
        },
        "dashboard_name": board_name(settings),
        "dashboard": board(settings),
        "alarms": {
            alarm.name: {
                "severity": alarm.severity.value,
                "description": alarm.request()["AlarmDescription"],
                "namespace": alarm.metric.namespace,
                "metric": alarm.metric.name,
                "dimensions": dict(alarm.metric.dimensions),
                "statistic": None if alarm.metric.is_percentile else alarm.metric.statistic,
                "extended_statistic": alarm.metric.statistic if alarm.metric.is_percentile else None,
                "period": alarm.seconds,
                "evaluation_periods": alarm.periods,
                "threshold": alarm.threshold,
                "comparison": alarm.comparison,
                "missing": alarm.missing,
            }
            for alarm in alarms(settings)
        },
        "queries": saved_queries(settings),
        "policies": all_policies(replace(PLACEHOLDERS, invites=settings.invites.prefix)),
        "roles": list(SERVICE_ACCOUNTS),
    }


def write_files(folder: Path = FOLDER) -> Iterator[Path]:
    """One file for each environment. Raises UsageError when the settings of one are invalid."""
    folder.mkdir(parents=True, exist_ok=True)
    for environment in ENVIRONMENTS:
        path = folder / f"{environment}.json"
        options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
        path.write_bytes(orjson.dumps(document(settings_of(environment)), option=options))
        yield path


def write_archive(folder: Path) -> Path:
    """The release archive: `deploy/` with the generated files, and `configs/`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"regworkers-deploy-{version('regworkers')}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("deploy", "configs"):
            archive.add(PROJECT_ROOT / name, name)
    return path


if __name__ == "__main__":
    for written in [*write_files(), *write_residents(), write_archive(PROJECT_ROOT / "dist")]:
        sys.stdout.write(f"{written.relative_to(PROJECT_ROOT)}\n")
