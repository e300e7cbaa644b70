"""One file per environment, made of its settings, so that the module repeats nothing that the code decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from regworkers_core.infrastructure.dashboards.alarms import alarms
from regworkers_core.infrastructure.dashboards.board import board, board_name
from regworkers_core.infrastructure.dashboards.queries import saved_queries
from regworkers_core.infrastructure.desired import desired
from regworkers_core.infrastructure.policies.roles import ROLES
from regworkers_core.settings import PROJECT_ROOT, Environment, Settings, settings_of

FOLDER = PROJECT_ROOT / "deploy" / "terraform" / "generated"
ENVIRONMENTS: tuple[Environment, ...] = ("qa", "preprod", "prod")


def document(settings: Settings) -> dict[str, Any]:
    """Values and names as Terraform's providers call them."""
    return {
        "prefix": settings.names.prefix,
        "region": settings.aws.region,
        "bucket": settings.names.bucket,
        "visibility_seconds": settings.save.visibility_seconds,
        "log_retention_days": desired(settings).log_group.retention_days,
        "dashboard_name": board_name(settings),
        "dashboard": board(settings),
        "alarms": {
            alarm.name: {
                "severity": alarm.severity.value,
                "description": alarm.request()["AlarmDescription"],
                "namespace": alarm.metric.namespace,
                "metric": alarm.metric.name,
                "dimensions": dict(alarm.metric.dimensions),
                "statistic": alarm.metric.statistic,
                "period": alarm.seconds,
                "evaluation_periods": alarm.periods,
                "threshold": alarm.threshold,
                "comparison": alarm.comparison,
                "missing": alarm.missing,
            }
            for alarm in alarms(settings)
        },
        "queries": {query.name: query.text for query in saved_queries(settings)},
        "roles": list(ROLES),
        "attachments": {
            f"{role}/{policy}": {"role": role, "policy": policy}
            for role, policies in ROLES.items()
            for policy in policies
        },
    }


def files() -> dict[str, bytes]:
    """Content by file name. Raises UsageError when the settings of an environment are wrong."""
    return {
        f"{environment}.json": orjson.dumps(
            document(settings_of(environment)), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS
        )
        + b"\n"
        for environment in ENVIRONMENTS
    }


def write_files(folder: Path = FOLDER) -> list[Path]:
    """Write those that differ; returns them."""
    touched = []
    for name, content in files().items():
        path = folder / name
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
            touched.append(path)
    return touched
