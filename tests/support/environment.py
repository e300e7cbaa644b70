"""A runtime's settings as environment variables, for processes that the tests start."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import SecretStr

from regworkers_core.runtime import Runtime


def environment_of(runtime: Runtime) -> dict[str, str]:
    """Every setting of `runtime`, so that a child sees the same servers and the same namespace."""
    found: dict[str, str] = {}
    for name, value in runtime.settings.model_dump().items():
        fields = value if isinstance(value, dict) else {"": value}
        for field, content in fields.items():
            if content is not None:
                variable = "REGWORKERS_" + name.upper() + ("__" + field.upper() if field else "")
                found[variable] = _text(content)
    return found


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
