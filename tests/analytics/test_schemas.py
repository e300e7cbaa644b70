"""The schemas that are checked in: equal to the models, and never broken."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema_rs import meta

from regworkers_core.analytics import event_models
from regworkers_core.analytics.event_models import FOLDER, file_of, schema, topics_by_type
from regworkers_core.domain.events import EventType
from regworkers_core.settings import PROJECT_ROOT, Names
from tools import write_event_schemas
from tools.write_event_schemas import as_file, breaking_changes, generated

# As version 1 went out. A file here is added with a new type or version, and never changed.
PUBLISHED = Path(__file__).with_name("published")


@pytest.mark.parametrize("kind", EventType)
def test_a_schema_equals_its_model(kind: EventType) -> None:
    assert file_of(kind).read_bytes() == as_file(generated(kind)), "run `python -m tools.write_event_schemas`"
    meta.validate(schema(kind))


@pytest.mark.parametrize("kind", EventType)
def test_a_published_version_is_not_broken(kind: EventType) -> None:
    published = orjson.loads((PUBLISHED / file_of(kind).name).read_bytes())
    assert breaking_changes(published, schema(kind)) == []


def test_only_the_ids_of_the_grammar_may_get_a_pattern_of_their_own() -> None:
    published = orjson.loads((PUBLISHED / "entry.replicated.v1.json").read_bytes())
    narrower = copy.deepcopy(schema(EventType.ENTRY_REPLICATED))
    narrower["properties"]["data"]["properties"]["entryId"]["pattern"] = "^x$"
    assert breaking_changes(published, narrower) == ["/data/entryId: pattern differs"]
    narrower = copy.deepcopy(schema(EventType.ENTRY_REPLICATED))
    narrower["properties"]["correlationid"]["pattern"] = "^x$"
    assert breaking_changes(schema(EventType.ENTRY_REPLICATED), narrower) == [
        "/correlationid: pattern differs"
    ]


def test_every_type_has_a_schema_and_a_topic_and_no_schema_is_left_over() -> None:
    names = Names("qa-")
    assert {path.name for path in FOLDER.iterdir()} == {file_of(kind).name for kind in EventType}
    topics = topics_by_type(names)
    assert topics.keys() == set(EventType) and set(topics.values()) == set(names.topics)


BEFORE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["id", "kind"],
    "properties": {
        "id": {"type": "string"},
        "kind": {"type": "string", "enum": ["a", "b"]},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "seats": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"type": "string"}},
        "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
        "inner": {"type": "object", "properties": {"deep": {"type": "string"}}, "required": []},
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """`BEFORE` with the value at a path of dots; None removes it."""
    made = copy.deepcopy(BEFORE)
    *parents, last = path.split(".")
    place = made
    for name in parents:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return made


@pytest.mark.parametrize(
    "new",
    [
        BEFORE,
        changed("properties.more", {"type": "string"}),
        changed("properties.kind.enum", ["a", "b", "c"]),
        changed("properties.seats.minimum", None),
        changed("properties.inner.properties.other", {"type": "integer"}),
        changed("additionalProperties", True),
        changed("properties.id.description", "words"),
    ],
)
def test_a_schema_may_grow(new: dict[str, Any]) -> None:
    assert breaking_changes(BEFORE, new) == []


@pytest.mark.parametrize(
    ("new", "line"),
    [
        (changed("properties.note", None), "/note: was removed"),
        (changed("properties.inner.properties", {"deeper": {"type": "string"}}), "/inner/deep: was removed"),
        (changed("properties.seats.type", "number"), "/seats: was integer, is number"),
        (changed("properties.note", {"type": "string"}), "/note: was null or string, is string"),
        (
            changed("properties.id", {"anyOf": [{"type": "string"}, {"type": "null"}]}),
            "/id: was string, is null or string",
        ),
        (changed("required", ["id", "kind", "seats"]), "/seats: is required now"),
        (changed("required", ["id"]), "/kind: is no longer required"),
        (changed("properties.inner.required", ["deep"]), "/inner/deep: is required now"),
        (changed("properties.kind.enum", ["a"]), "/kind: no longer accepts b"),
        (changed("properties.kind", {"type": "string", "const": "a"}), "/kind: no longer accepts b"),
        (changed("properties.id.enum", ["x"]), "/id: only certain values are accepted now"),
        (changed("properties.id.pattern", "^x$"), "/id: pattern differs"),
        (changed("properties.id.maxLength", 3), "/id: maxLength is narrower"),
        (changed("properties.seats.minimum", 1), "/seats: minimum is narrower"),
        (changed("properties.tags.items.type", "integer"), "/tags[]: was string, is integer"),
        (changed("properties.tags.items.minLength", 1), "/tags[]: minLength is narrower"),
        (
            changed("properties.counts.additionalProperties", False),
            "/counts: further fields are restricted now",
        ),
        (
            changed("properties.counts.additionalProperties.type", "string"),
            "/counts/*: was integer, is string",
        ),
        (
            changed("properties.inner.additionalProperties", False),
            "/inner: further fields are restricted now",
        ),
    ],
)
def test_a_breaking_change_is_refused_with_its_path(new: dict[str, Any], line: str) -> None:
    assert breaking_changes(BEFORE, new) == [line]


def test_the_generator_refuses_to_break_a_published_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(event_models, "FOLDER", tmp_path)
    assert write_event_schemas.main() == 0 and len(list(tmp_path.iterdir())) == len(EventType)
    path = file_of(EventType.ENTRY_REMOVED)
    published = orjson.loads(path.read_bytes())
    published["properties"]["reason"] = {"type": "string"}
    path.write_bytes(as_file(published))
    assert write_event_schemas.main() == 1
    assert "entry.removed.v1.json: /reason: was removed" in capsys.readouterr().err
    assert orjson.loads(path.read_bytes()) == published


def test_the_schemas_are_part_of_the_package() -> None:
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["regworkers_core.analytics"]
    package = FOLDER.parent
    assert {path for pattern in patterns for path in package.glob(pattern)} >= set(FOLDER.iterdir())
