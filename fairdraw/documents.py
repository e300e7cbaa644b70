"""JSON documents from dataclasses, and back: field names in camelCase, values as JSON has them."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AnySet
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
# Levels of objects and arrays. MongoDB stores 100 ("MongoDB limits: nested depth"), DynamoDB 32; orjson reads 1024
# and writes 254.
MAX_DEPTH = 64
# A class whose document is not its fields has a method of one of these names.
_OWN = ("as_document", "as_dict")


@lru_cache(maxsize=4096)
def camel(name: str) -> str:
    """`opens_at` as `opensAt`. The underscore of `from_`, which avoids a keyword, is dropped."""
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def as_document(value: Any, *names: str) -> dict[str, Any]:
    """A dataclass or named tuple as a JSON object: all its fields, or the attributes in `names`, in that order.

    Names become camelCase, values are converted by `as_json`. For single fields of another shape, merge them in, which
    keeps the order: `as_document(self) | {"seconds": round(self.seconds, 3)}`.
    """
    return {camel(name): as_json(getattr(value, name)) for name in names or _field_names(type(value))}


def as_json(value: Any) -> Any:
    """`value` with dataclasses as objects (by their own `as_document` or `as_dict` if they have one), enum members as
    their values, paths as text, sets sorted and other sequences as lists. Keys of mappings stay, but for enum members.
    """
    if value is None or isinstance(value, str | int | float | bytes):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, Mapping):
        return {as_json(key): as_json(each) for key, each in value.items()}
    for name in _OWN:
        if (own := getattr(value, name, None)) is not None:
            return own()
    if is_dataclass(value) or hasattr(value, "_fields"):
        return as_document(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, AnySet):
        return sorted(map(as_json, value))
    return [as_json(each) for each in value]


def _field_names(kind: type) -> tuple[str, ...]:
    if is_dataclass(kind):
        return tuple(each.name for each in fields(kind))
    names: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
    return names


def from_document(kind: type[T], document: Mapping[str, Any], **given: Any) -> T:
    """The opposite of `as_document` for a dataclass of plain values: the `given` fields, else those of the document,
    else their defaults.
    """
    known = {name: camel(name) for name in _field_names(kind) if name not in given}
    return kind(**given, **{name: document[key] for name, key in known.items() if key in document})


# This runs for every item of every message: a loop, and no call for what is as usual.


def is_too_deep(value: Any, levels: int = MAX_DEPTH) -> bool:
    """Whether JSON as Python reads it holds more than `levels` objects and arrays in each other."""
    kind = value.__class__
    if kind is not dict and kind is not list:
        return False
    if not levels:
        return True
    for each in value.values() if kind is dict else value:
        kind = each.__class__
        if (kind is dict or kind is list) and is_too_deep(each, levels - 1):
            return True
    return False
