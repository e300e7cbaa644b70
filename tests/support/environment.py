"""Settings as environment variables: a runtime's, for processes that tests start, and none of a running instance."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

import orjson
import yaml
from pydantic import SecretStr

from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT, Settings, snake


def leave_instances() -> None:
    """From now on neither the addresses of a running instance nor the caller's environment reach the settings."""
    os.environ["REGWORKERS_INSTANCE"] = "none"
    os.environ.pop("CONFIG_ENV", None)


def environment_of(runtime: Runtime) -> dict[str, str]:
    """Every setting of `runtime` that is not what it is everywhere, so that a child sees the same servers and the same
    namespace. Reading them takes as long as there are variables.
    """
    found: dict[str, str] = {}
    for name, value in runtime.settings.model_dump().items():
        fields = value if isinstance(value, dict) else {"": value}
        for field, content in fields.items():
            if content is not None and content != _everywhere().get((name, field)):
                variable = "REGWORKERS_" + name.upper() + ("__" + field.upper() if field else "")
                found[variable] = _text(content)
    return found


@cache
def _everywhere() -> Mapping[tuple[str, str], Any]:
    """The default, by section and field, of what no file of an environment sets."""
    values = {
        (name, field): value
        for name, section in Settings.model_fields.items()
        if hasattr(section.default, "model_dump")
        for field, value in section.default.model_dump().items()
    }
    for path in (PROJECT_ROOT / "configs").glob("*.yml"):
        for section, fields in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            for field in fields if isinstance(fields, dict) else ():
                values.pop((snake(section), snake(field)), None)
    return values


def _text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        plain = {
            name: item if isinstance(item, list | tuple) else _text(item)
            for name, item in value.items()
            if item is not None
        }
        return orjson.dumps(plain).decode()
    if isinstance(value, list | tuple):
        return orjson.dumps([_text(item) for item in value]).decode()
    return str(value)
