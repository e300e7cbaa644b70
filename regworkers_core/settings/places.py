"""Where settings lie: the file of an environment, and what the embedded stack of this machine wrote down."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, get_args

import orjson

from regworkers_core.domain.reasons import UsageError

Environment = Literal["local-dev", "qa", "preprod", "prod"]
PROJECT_ROOT = Path(__file__).resolve().parents[2]
ENV_PREFIX = "REGWORKERS_"


def config_file(environment: str | None = None) -> Path:
    """The file of an environment, by default that which CONFIG_ENV chooses; `REGWORKERS_CONFIG_DIR` moves the folder.
    Raises UsageError.
    """
    environment = environment or os.environ.get("CONFIG_ENV") or "local-dev"
    if environment not in get_args(Environment):
        known = ", ".join(get_args(Environment))
        raise UsageError(f"CONFIG_ENV={environment} is not an environment: choose one of {known}")
    folder = Path(os.environ.get(ENV_PREFIX + "CONFIG_DIR") or PROJECT_ROOT / "configs")
    return folder / f"{environment}.config.yml"


def stack_state_file() -> Path:
    """Where the embedded stack of this instance writes its addresses."""
    folder = Path(os.environ.get(ENV_PREFIX + "LOCAL_DIR") or PROJECT_ROOT / ".local")
    return folder / (os.environ.get(ENV_PREFIX + "INSTANCE") or "default") / "state.json"


def stack_state() -> dict[str, Any]:
    """What the embedded stack of this instance wrote down: addresses by server, `id`, `instance`, `pids`, `started`
    (epoch seconds). Empty when there is none or it is damaged.
    """
    try:
        document = orjson.loads(stack_state_file().read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return document if isinstance(document, dict) else {}
