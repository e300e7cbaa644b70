"""Whether a schema still keeps what its published copy has promised: to those who validate, and to those who read.

It may gain optional fields and values of an enumeration. Everything else breaks somebody: who reads relies on fields,
types and what is required; who writes relies on not being refused. One exception: ids whose grammar the data contract
has from the start may get it as a pattern, since what it refuses was never to be published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
# Keywords that refuse values, and for which of two values refuses more.
_UPPER = ("maxLength", "maximum", "exclusiveMaximum", "maxItems", "maxProperties")
_LOWER = ("minLength", "minimum", "exclusiveMinimum", "minItems", "minProperties")
_EXACT = ("pattern", "format", "uniqueItems", "multipleOf")
# Refs, markets, segments and correlation ids ("Grammar" of the data contract).
_GRAMMAR = ("/correlationid", "/data/ref", "/data/marketId", "/data/markets[]", "/data/segments[]")


def breaking_changes(published: Schema, new: Schema) -> list[str]:
    """One line for each, with the path below the schema; empty when `new` may take the published one's place.

    Both are without `$ref`, as `event_schemas.generated` makes them.
    """
    return list(_changes(published, new, ""))


def _changes(published: Schema, new: Schema, path: str) -> Iterator[str]:
    before, after = _types(published), _types(new)
    if before.keys() != after.keys():
        yield f"{path or '/'}: was {_named(before)}, is {_named(after)}"
        return
    for name, option in before.items():
        yield from _option_changes(option, after[name], path)


def _option_changes(published: Schema, new: Schema, path: str) -> Iterator[str]:
    """Both of one type."""
    here = path or "/"
    yield from _values(published, new, here)
    for word in _UPPER:
        if word in new and new[word] < published.get(word, float("inf")):
            yield f"{here}: {word} is narrower"
    for word in _LOWER:
        if word in new and new[word] > published.get(word, float("-inf")):
            yield f"{here}: {word} is narrower"
    for word in _EXACT:
        is_grammar = word == "pattern" and word not in published and here in _GRAMMAR
        if word in new and new[word] != published.get(word) and not is_grammar:
            yield f"{here}: {word} differs"
    yield from _fields(published, new, path)
    yield from _open_fields(published, new, path)
    yield from _items(published, new, path)


def _values(published: Schema, new: Schema, here: str) -> Iterator[str]:
    before, after = _allowed(published), _allowed(new)
    if after is None:
        return
    if before is None:
        yield f"{here}: takes only certain values now"
    elif gone := [value for value in before if value not in after]:
        yield f"{here}: no longer takes {', '.join(map(str, gone))}"


def _fields(published: Schema, new: Schema, path: str) -> Iterator[str]:
    before, after = published.get("properties", {}), new.get("properties", {})
    for name in before.keys() - after.keys():
        yield f"{path}/{name}: is gone"
    required, required_before = set(new.get("required", ())), set(published.get("required", ()))
    for name in required - required_before:
        yield f"{path}/{name}: is required now"
    for name in (required_before - required) & after.keys():
        yield f"{path}/{name}: is no longer required"
    for name in before.keys() & after.keys():
        yield from _changes(before[name], after[name], f"{path}/{name}")


def _open_fields(published: Schema, new: Schema, path: str) -> Iterator[str]:
    """Fields without a name of their own: refused, free, or values of one schema."""
    before, after = published.get("additionalProperties", True), new.get("additionalProperties", True)
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from _changes(before, after, f"{path}/*")
    elif after is not True and before is not False and before != after:
        yield f"{path or '/'}: further fields are restricted now"


def _items(published: Schema, new: Schema, path: str) -> Iterator[str]:
    before, after = published.get("items"), new.get("items")
    if before is not None and after is not None:
        yield from _changes(before, after, f"{path}[]")
    elif after is not None:
        yield f"{path}[]: is restricted now"


def _types(schema: Schema) -> dict[str, Schema]:
    """The alternatives of a schema by their JSON type; `any` where none is named."""
    options = schema.get("anyOf", schema.get("oneOf", [schema]))
    found: dict[str, Schema] = {}
    for option in options:
        names = option.get("type", _type_of_values(option))
        for name in names if isinstance(names, list) else [names]:
            found[name] = option
    return found


def _type_of_values(schema: Schema) -> str:
    allowed = _allowed(schema)
    return "string" if allowed and all(isinstance(value, str) for value in allowed) else "any"


def _allowed(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum")


def _named(types: Mapping[str, Schema]) -> str:
    return " or ".join(sorted(types))
