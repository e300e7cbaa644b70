"""Documents of `--format json` are held to what was recorded of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regworkers_core.operations import dependencies
from regworkers_core.runtime import Runtime
from tests.cli.documents import Shape, commands, differences, recorded
from tests.support.shared import shared_namespace
from tests.support.terminal import regworkers

RECORDED = Shape.parsed(
    {
        "": "object",
        "state": "str",
        "seconds": "float",
        "markets": "list",
        "markets[]": "object",
        "markets[].id": "str",
        "markets[].note?": "null|str",
        "phases": "object",
        "phases.*": "object",
        "phases.*.drawn": "int",
    }
)
DOCUMENT: dict[str, object] = {
    "state": "open",
    "seconds": 0.5,
    "markets": [{"id": "berlin"}, {"id": "paris", "note": None}],
    "phases": {"1": {"drawn": 3}},
}


@pytest.fixture(scope="module")
def quiet() -> Iterator[Runtime]:
    with shared_namespace() as made:
        yield made


@pytest.mark.parametrize(
    "document",
    [
        DOCUMENT,
        {**DOCUMENT, "seconds": 1},
        {**DOCUMENT, "markets": [], "phases": {}},
        {**DOCUMENT, "phases": {"first": {"drawn": 3}}},
    ],
)
def test_a_document_with_the_recorded_keys_and_types_passes(document: object) -> None:
    assert list(differences(document, RECORDED)) == []


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({**DOCUMENT, "more": 1}, "has more (int), which is not recorded"),
        ({**DOCUMENT, "state": None}, "has state as null, recorded as str"),
        ({**DOCUMENT, "markets": [{"note": "full"}]}, "lacks markets[].id (str), which every document has"),
        ({**DOCUMENT, "phases": {"2": {}}}, "lacks phases.*.drawn (int), which every document has"),
        ([], "has  as list, recorded as object"),
    ],
)
def test_a_lost_key_an_unknown_key_and_another_type_are_named(document: object, said: str) -> None:
    assert list(differences(document, RECORDED)) == [said]


def test_a_key_is_optional_where_one_of_many_objects_lacks_it() -> None:
    shape = Shape()
    for document in ({"a": 1, "b": [{"c": 1}, {}]}, {"a": None}):
        shape.see(document)
    assert shape.lines() == {"": "object", "a": "int|null", "b?": "list", "b[]": "object", "b[].c?": "int"}
    assert Shape.parsed(shape.lines()).lines() == shape.lines()


@pytest.mark.parametrize(
    "words",
    [
        ("dependencies",),
        ("drain", "notifications", "--idle-seconds", "0.1"),
        ("drain", "register", "--idle-seconds", "0.1"),
        ("drain", "selections", "--idle-seconds", "0.1"),
        ("review", "monthly"),
        ("review", "quarterly", "--no-drill"),
        ("runbook",),
        ("runbook", "cost"),
        ("runbook", "stream-lag"),
    ],
)
def test_a_quiet_environment_has_a_document(
    quiet: Runtime, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(
        dependencies, "_run", lambda words: b'{"dependencies": []}' if "pip_audit" in words else b"[]"
    )
    answer = regworkers(quiet, *words, "--format", "json")
    assert answer.code in (0, 1) and answer.document


def test_every_command_with_a_document_is_recorded_and_no_other() -> None:
    assert sorted(recorded()) == sorted(commands()), "python -m tests.cli.documents --record"
