"""DynamoDB attribute values to plain Python and back, fast: this runs once for every field of every entry."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

_INT64 = 2**63


def _number(text: str) -> int | float:
    """An int where the replica can hold it (64 bits), else the nearest float."""
    try:
        value = int(text)
    except ValueError:
        return float(text)
    return value if -_INT64 <= value < _INT64 else float(value)


def plain(value: Mapping[str, Any]) -> Any:
    """One attribute value as str, int, float, bool, None, bytes, list or dict; sets become sorted lists.

    Binary values may still be the base64 text of the wire.
    """
    ((kind, content),) = value.items()
    if kind == "S" or kind == "BOOL":
        return content
    if kind == "N":
        return _number(content)
    if kind == "L":
        return [plain(item) for item in content]
    if kind == "M":
        return {name: plain(item) for name, item in content.items()}
    if kind == "NULL":
        return None
    if kind == "NS":
        return sorted(_number(item) for item in content)
    if kind == "SS":
        return sorted(content)
    return _binary(content) if kind == "B" else sorted(_binary(item) for item in content)


def _binary(content: str | bytes) -> bytes:
    return base64.b64decode(content) if isinstance(content, str) else content


def plain_item(item: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A whole item."""
    return {name: plain(value) for name, value in item.items()}


def attribute(value: Any) -> dict[str, Any]:
    """A plain value as an attribute value. Raises TypeError for a type that DynamoDB does not have."""
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int | float):
        return {"N": str(value)}
    if value is None:
        return {"NULL": True}
    if isinstance(value, bytes):
        return {"B": value}
    if isinstance(value, list | tuple):
        return {"L": [attribute(item) for item in value]}
    if isinstance(value, Mapping):
        return {"M": attributes(value)}
    raise TypeError(f"no attribute value for {type(value).__name__}")


def attributes(item: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A whole item as attribute values."""
    return {name: attribute(value) for name, value in item.items()}
