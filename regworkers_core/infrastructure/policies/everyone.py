"""All workers, and the files that are made of them."""

from __future__ import annotations

from pathlib import Path

import orjson

from regworkers_core.infrastructure.policies.platform import OPERATORS, PLATFORM
from regworkers_core.infrastructure.policies.statement import PLACEHOLDERS, Worker
from regworkers_core.infrastructure.policies.upkeep import UPKEEP
from regworkers_core.infrastructure.policies.workers import ANALYTICS, ELIGIBILITY, REPLICATION, SELECTION
from regworkers_core.settings import PROJECT_ROOT

WORKERS: tuple[Worker, ...] = (
    *REPLICATION,
    *SELECTION,
    *ELIGIBILITY,
    *ANALYTICS,
    *PLATFORM,
    *OPERATORS,
    *UPKEEP,
)
FOLDER = PROJECT_ROOT / "deploy" / "policies"


def files() -> dict[str, bytes]:
    """Content by file name, with placeholders for what each environment has of its own."""
    return {
        f"{worker.name}.json": orjson.dumps(worker.policy(PLACEHOLDERS), option=orjson.OPT_INDENT_2) + b"\n"
        for worker in WORKERS
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
