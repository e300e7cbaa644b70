"""The Lambda handler: every shape of event that a caller may send."""

from __future__ import annotations

from typing import Any

import pytest

from regworkers_core.domain.reasons import UsageError
from regworkers_core.eligibility import handler as module
from regworkers_core.eligibility.handler import handler
from regworkers_core.runtime import Runtime
from tests.eligibility.world import check, codes, create

INFO = {"fieldName": "checkEligibility", "parentTypeName": "Query", "variables": {}}


@pytest.fixture
def asked(servers: Runtime, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often a runtime was made."""
    made: list[int] = []

    def load() -> Runtime:
        made.append(1)
        return servers

    create(servers)
    monkeypatch.setattr(module, "_runtime", None)
    monkeypatch.setattr(Runtime, "load", staticmethod(load))
    return made


def appsync(**arguments: Any) -> dict[str, Any]:
    return {"arguments": arguments, "identity": None, "info": INFO, "request": {"headers": {}}}


def test_a_list_is_answered_by_a_list_and_the_runtime_is_made_once(asked: list[int]) -> None:
    assert asked == []
    for _ in range(2):
        first, second = handler([check(), check("nowhere")], object())
        assert first["status"] == "ELIGIBLE" and codes(second) == ["CAMPAIGN_NOT_FOUND"]
    assert asked == [1]


def test_an_appsync_event_of_one_check_is_answered_by_one_answer(asked: list[int]) -> None:
    answer = handler(appsync(**check(markets=["nowhere"])))
    assert answer["status"] == "INELIGIBLE" and answer["primaryReason"] == "MARKET_UNKNOWN"


def test_an_appsync_event_of_many_checks_is_answered_by_a_list(asked: list[int]) -> None:
    answers = handler(appsync(checks=[check(), check(email="x")]))
    assert [each["status"] for each in answers] == ["ELIGIBLE", "INELIGIBLE"]


def test_a_batch_of_appsync_events_is_answered_by_one_response_each(asked: list[int]) -> None:
    one, many = handler([appsync(**check()), appsync(checks=[check("nowhere")])])
    assert one["status"] == "ELIGIBLE" and codes(many[0]) == ["CAMPAIGN_NOT_FOUND"]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({}, "found an object without arguments"),
        ({"arguments": None, "info": INFO}, "found an object without arguments"),
        (appsync(), "arguments should hold checks"),
        (appsync(checks={}), "arguments.checks should be a list"),
        ("text", "a list of checks is due"),
        (None, "a list of checks is due"),
    ],
)
def test_an_event_of_another_shape_is_answered_by_what_is_wrong(
    asked: list[int], event: Any, expected: str
) -> None:
    answer = handler(event)
    assert answer["errorType"] == "UsageError" and expected in answer["errorMessage"]


def test_an_environment_that_is_not_set_up_is_an_error_and_is_tried_anew(
    asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Runtime:
        raise UsageError("set CONFIG_ENV")

    good = Runtime.load
    monkeypatch.setattr(Runtime, "load", staticmethod(fail))
    assert handler([]) == {"errorType": "UsageError", "errorMessage": "set CONFIG_ENV"}
    monkeypatch.setattr(Runtime, "load", staticmethod(good))
    assert handler([]) == []
