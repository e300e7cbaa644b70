"""Dataclasses as JSON documents."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fairdraw.documents import as_document, as_json, camel, from_document


class Colour(StrEnum):
    RED = "red"


class Remark(NamedTuple):
    level: str
    found_at: str


@dataclass(frozen=True, slots=True)
class Part:
    from_: Colour
    last_position: int | None = None


@dataclass(frozen=True, slots=True)
class Own:
    number: int

    def as_dict(self) -> dict[str, Any]:
        return {"own": self.number}


@dataclass(slots=True)
class Report:
    campaign_id: str
    parts: tuple[Part, ...] = ()
    remarks: list[Remark] = field(default_factory=list)
    by_colour: Counter[Colour] = field(default_factory=Counter)
    own: Own = field(default_factory=lambda: Own(1))
    rejects_file: Path | None = None

    @property
    def adds_up(self) -> bool:
        return True


def test_a_dataclass_is_an_object_of_its_fields_in_their_order() -> None:
    report = Report("summer", (Part(Colour.RED, 3),), [Remark("note", "t")], Counter({Colour.RED: 2}))

    document = as_document(report)

    assert list(document) == ["campaignId", "parts", "remarks", "byColour", "own", "rejectsFile"]
    assert document == {
        "campaignId": "summer",
        "parts": [{"from": "red", "lastPosition": 3}],
        "remarks": [{"level": "note", "foundAt": "t"}],
        "byColour": {"red": 2},
        "own": {"own": 1},
        "rejectsFile": None,
    }
    assert type(document["parts"][0]["from"]) is str and type(next(iter(document["byColour"]))) is str


def test_names_choose_attributes_and_their_order_properties_included() -> None:
    document = as_document(Report("summer", rejects_file=Path("/a/b")), "adds_up", "rejects_file")

    assert list(document.items()) == [("addsUp", True), ("rejectsFile", "/a/b")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("campaign_id", "campaignId"), ("from_", "from"), ("at", "at"), ("latency_ms", "latencyMs")],
)
def test_names_become_camel_case(name: str, expected: str) -> None:
    assert camel(name) == expected


def test_keys_of_mappings_are_data_and_stay() -> None:
    assert as_json({"not_camel": {"b", "a"}, Colour.RED: (1, 2.5)}) == {
        "not_camel": ["a", "b"],
        "red": [1, 2.5],
    }


def test_a_dataclass_is_read_back_with_defaults_for_what_a_document_lacks() -> None:
    part = Part(Colour.RED, 3)

    assert from_document(Part, {**as_document(part), "_id": "other"}) == part
    assert from_document(Part, {"lastPosition": 1}, from_=Colour.RED) == Part(Colour.RED, 1)
    assert from_document(Part, {"from": "red"}).last_position is None
