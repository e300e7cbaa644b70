"""The JSON Schemas of events: generated from the models, checked in, and what events are validated against.

`python -m regworkers_core.analytics.event_schemas` writes the files; it refuses to break one that stands.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from regworkers_core.analytics.compatibility import breaking_changes
from regworkers_core.analytics.models import MODELS, VERSION
from regworkers_core.domain.events import EventType

FOLDER = Path(__file__).with_name("schemas")
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]


def file_of(kind: EventType) -> Path:
    return FOLDER / f"{kind.value}.v{VERSION}.json"


@cache
def schema(kind: EventType) -> Schema:
    """The schema of a type as it is checked in."""
    document: Schema = orjson.loads(file_of(kind).read_bytes())
    return document


def generated(kind: EventType) -> Schema:
    """The schema of a type as its model has it: without references, so that it can be read from top to bottom."""
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
    # A title that only repeats the name of its field says nothing; a field called `title` is no text.
    return {
        key: _inlined(each, definitions)
        for key, each in node.items()
        if key != "title" or not isinstance(each, str)
    }


def main() -> int:
    """Write what differs; 1 if that would break a version that is published."""
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
