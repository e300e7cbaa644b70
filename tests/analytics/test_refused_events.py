"""Which events are refused, and in which words."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from regworkers_core.analytics.publishing import Candidate, refusal
from regworkers_core.domain.reasons import Reason
from tests.analytics.world import of_every_type, removed

EVENT = removed(1)
DATA = EVENT["data"]
MAIL = "fan@example.com"


@pytest.mark.parametrize("event", of_every_type(), ids=lambda event: event["type"])
def test_events_keep_to_their_schema_as_the_flows_make_them(event: dict[str, Any]) -> None:
    assert refusal(event) is None


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (None, "an event should be an object, found NoneType"),
        ([MAIL], "an event should be an object, found list"),
        ({**EVENT, "type": "entry.bought"}, "/properties/type: no published type of event"),
        ({**EVENT, "type": [MAIL]}, "/properties/type: no published type of event"),
        ({name: EVENT[name] for name in EVENT if name != "id"}, "/required: id is missing"),
        (
            {name: EVENT[name] for name in EVENT if name != "type"},
            "/properties/type: no published type of event",
        ),
        ({**EVENT, "id": MAIL}, "/properties/id/pattern"),
        ({**EVENT, "specversion": "0.3"}, "/properties/specversion/const"),
        ({**EVENT, "specversion": 1.0}, "/properties/specversion/type"),
        ({**EVENT, "time": "yesterday"}, "/properties/time/pattern"),
        ({**EVENT, "correlationid": MAIL}, "/properties/correlationid/pattern"),
        ({**EVENT, "source": MAIL}, "/properties/source/const"),
        ({**EVENT, "partitionkey": ""}, "/properties/partitionkey/minLength"),
        ({**EVENT, "email": MAIL}, "/additionalProperties"),
        ({**EVENT, "data": {**DATA, "firstName": MAIL}}, "/properties/data/additionalProperties"),
        ({**EVENT, "data": {**DATA, "version": MAIL}}, "/properties/data/properties/version/type"),
        ({**EVENT, "data": {**DATA, "version": -1}}, "/properties/data/properties/version/minimum"),
        ({**EVENT, "data": MAIL}, "/properties/data/type"),
    ],
)
def test_a_refusal_names_the_path_of_the_schema_and_never_a_value(event: Any, error: str) -> None:
    failure = refusal(event)
    assert failure is not None
    assert (failure.reason, failure.error) == (Reason.INVALID_EVENT, error)


@pytest.mark.parametrize("name", ["ref", "marketId"])
def test_an_id_of_a_draw_that_may_be_a_fans_address_is_refused(name: str) -> None:
    for event in of_every_type():
        if name in event["data"]:
            failure = refusal({**event, "data": {**event["data"], name: MAIL}})
            assert failure is not None and MAIL not in failure.error and name in failure.error


@pytest.mark.parametrize(("name", "value"), [("markets", MAIL), ("segments", MAIL), ("markets", "-")])
def test_an_invalid_market_or_segment_is_refused(name: str, value: str) -> None:
    (replicated, *_) = of_every_type()
    failure = refusal({**replicated, "data": {**replicated["data"], name: [value]}})
    assert failure is not None and failure.error == f"/properties/data/properties/{name}/items/pattern"


def test_a_refused_event_has_a_derived_key_and_its_subject() -> None:
    good, bad = Candidate.of(EVENT), Candidate.of({**EVENT, "specversion": "0.3"})
    assert good.key == EVENT["id"] and bad.key.startswith("refused-")
    assert good.subject.ids == bad.subject.ids == {"campaignId": "summer", "entryId": "e1"}
    assert Candidate.of({"data": {"entryId": [MAIL]}}).subject.ids == {}
    assert Candidate.of({}).key != Candidate.of([]).key


@pytest.mark.parametrize("changes", [{"ref": MAIL}, {"markets": [5]}, {"segments": 5}, {"version": MAIL}])
def test_a_refused_event_stays_as_it_is(changes: dict[str, Any]) -> None:
    event = of_every_type()[0]
    wrong = {**event, "data": {**event["data"], **changes}}
    candidate = Candidate.of(wrong)
    assert candidate.problem is not None and orjson.loads(candidate.value) == wrong
