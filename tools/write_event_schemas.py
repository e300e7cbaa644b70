"""Writes the JSON Schemas of events from the models, but makes no breaking change: a schema may gain
optional fields and values of an enumeration. Readers rely on fields, types and what is required; writers rely on not
being refused. One exception: ids whose grammar the data contract has had from the start may gain it as a pattern, since
values that it refuses were never allowed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from regworkers_core.analytics.event_models import MODELS, VERSION, file_of
from regworkers_core.domain.events import EventType

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = Mapping[str, Any]


def generated(kind: EventType) -> Schema:
    """Generate the schema of a type from its model, with references inlined so that it reads from top to bottom."""
    made = MODELS[kind].model_json_schema(by_alias=True)
    inlined: Schema = _inlined(made, made.pop("$defs", {}))
    return {"$schema": _DIALECT, "$id": f"urn:regworkers:{kind.value}:v{VERSION}", **inlined}


def as_file(document: Schema) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _inlined(node: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(each, definitions) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = definitions[node["$ref"].removeprefix("#/$defs/")]
        return _inlined({**target, **{key: each for key, each in node.items() if key != "$ref"}}, definitions)
    # A title only repeats the name of its field. A field that is called `title` has a schema, not a text.
    return {
        key: _inlined(each, definitions)
        for key, each in node.items()
        if key != "title" or not isinstance(each, str)
    }


# Keywords that refuse values: by an upper limit, by a lower limit, or by any difference.
_UPPER = ("maxLength", "maximum", "exclusiveMaximum", "maxItems", "maxProperties")
_LOWER = ("minLength", "minimum", "exclusiveMinimum", "minItems", "minProperties")
_EXACT = ("pattern", "format", "uniqueItems", "multipleOf")
# Refs, markets, segments and correlation ids ("Grammar" of the data contract).
_GRAMMAR = ("/correlationid", "/data/ref", "/data/marketId", "/data/markets[]", "/data/segments[]")


def breaking_changes(published: Schema, new: Schema) -> list[str]:
    """Return one line per breaking change, with its path; empty if `new` may replace the published schema.

    Both have no `$ref`, as `generated` makes them.
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
    """Compare two schemas of one type."""
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
        yield f"{here}: only certain values are accepted now"
    elif gone := [value for value in before if value not in after]:
        yield f"{here}: no longer accepts {', '.join(map(str, gone))}"


def _fields(published: Schema, new: Schema, path: str) -> Iterator[str]:
    before, after = published.get("properties", {}), new.get("properties", {})
    for name in before.keys() - after.keys():
        yield f"{path}/{name}: was removed"
    required, required_before = set(new.get("required", ())), set(published.get("required", ()))
    for name in required - required_before:
        yield f"{path}/{name}: is required now"
    for name in (required_before - required) & after.keys():
        yield f"{path}/{name}: is no longer required"
    for name in before.keys() & after.keys():
        yield from _changes(before[name], after[name], f"{path}/{name}")


def _open_fields(published: Schema, new: Schema, path: str) -> Iterator[str]:
    """Compare undeclared fields: refused, free, or values of one schema."""
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
    """Return the alternatives of a schema by JSON type; `any` if it names none."""
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


def main() -> int:
    """Write the schemas that differ; return 1 if one would break a published version."""
    broken = []
    for kind in EventType:
        path, new = file_of(kind), generated(kind)
        if path.exists() and (changes := breaking_changes(orjson.loads(path.read_bytes()), new)):
            broken += [f"{path.name}: {change}" for change in changes]
            continue
        path.write_bytes(as_file(new))
    for line in broken:
        sys.stderr.write(line + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
