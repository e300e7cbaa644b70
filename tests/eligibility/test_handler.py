"""The Lambda handler: every shape of event that a caller may send."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from regworkers_core.adapters.aws.clients import AwsClients
from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_core.eligibility import handler as module
from regworkers_core.eligibility.handler import ENVIRONMENT_SECRET, handler
from regworkers_core.eligibility.identity import Caller
from regworkers_core.eligibility.request import read_check
from regworkers_core.runtime import Runtime
from regworkers_core.settings.flows import EligibilitySettings
from tests.eligibility.world import check, codes, create
from tests.support.environment import environment_of

pytestmark = pytest.mark.namespace("module")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
CHECKS = JSON | st.fixed_dictionaries({}, optional={"campaignSlug": JSON, "entry": JSON, "doTransfer": JSON})
EVENTS = CHECKS | st.fixed_dictionaries(
    {},
    optional={
        "arguments": JSON | CHECKS | st.fixed_dictionaries({"checks": JSON | st.lists(CHECKS, max_size=2)}),
        "identity": JSON | st.fixed_dictionaries({}, optional={"userArn": JSON, "claims": JSON}),
        "info": JSON,
    },
)
INFO = {"fieldName": "checkEligibility", "parentTypeName": "Query", "variables": {}}


@pytest.fixture
def asked(servers: Runtime, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How often a runtime was made."""
    made: list[int] = []

    def load() -> Runtime:
        made.append(1)
        return servers

    create(servers)
    monkeypatch.setattr(module, "_runtime", None)
    monkeypatch.setattr(Runtime, "load", staticmethod(load))
    yield made
    structlog.reset_defaults()


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
        ({}, "got an object without arguments"),
        ({"arguments": None, "info": INFO}, "got an object without arguments"),
        (appsync(), "arguments must have checks"),
        (appsync(checks={}), "arguments.checks must be a list"),
        ([appsync(**check()), check()], "got an object without arguments"),
        ([{"info": INFO}], "got an object without arguments"),
        ("text", "expected a list of checks"),
        (None, "expected a list of checks"),
    ],
)
def test_an_event_of_another_shape_is_answered_with_the_error(
    asked: list[int], event: Any, expected: str
) -> None:
    answer = handler(event)
    assert answer["errorType"] == "UsageError" and expected in answer["errorMessage"]


def test_a_fan_asks_for_few_at_once_however_the_request_is_cut(
    asked: list[int], servers: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = servers.settings.eligibility.fan_checks
    refused = "at most 10 checks are allowed in one request"
    assert len(handler(appsync(checks=[check("nowhere")] * few))) == few
    for event in (
        appsync(checks=[check("nowhere")] * (few + 1)),
        [appsync(**check("nowhere"))] * (few + 1),
        [appsync(**check("nowhere")), appsync(checks=[check("nowhere")] * few)],
    ):
        assert handler(event)["errorMessage"] == refused
    # A backend asks for its fans.
    assert len(handler([check("nowhere")] * (few + 1))) == few + 1
    chosen = servers.settings.eligibility.model_copy(update={"direct_callers": "fan"})
    monkeypatch.setattr(
        module, "_runtime", Runtime(servers.settings.model_copy(update={"eligibility": chosen}))
    )
    assert handler([check("nowhere")] * (few + 1))["errorMessage"] == refused


def test_a_fans_event_is_one_whatever_its_identity_and_a_trusted_backends_is_not(
    asked: list[int], servers: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    role, session = (
        "arn:aws:iam::123456789012:role/x/backend",
        "arn:aws:sts::123456789012:assumed-role/backend/s1",
    )
    chosen = servers.settings.eligibility.model_copy(update={"trusted_callers": (role,)})
    monkeypatch.setattr(
        module, "_runtime", Runtime(servers.settings.model_copy(update={"eligibility": chosen}))
    )
    odds = check(weight=64, segments=["loyal"], unit="u1", doTransfer=True)
    fan, backend = handler(
        [
            appsync(**odds),
            {
                **appsync(**check(weight=64, doTransfer=True, email="b@example.com")),
                "identity": {"userArn": session},
            },
        ]
    )
    assert fan["transfer"]["state"] == backend["transfer"]["state"] == "created"
    assert "sources" in backend and "sources" not in fan
    weights = {
        each["email"]["S"]: each.get("weight")
        for each in servers.dynamodb.scan(TableName=servers.names.demand_table)["Items"]
        if "email" in each
    }
    assert weights == {"fan@example.com": None, "b@example.com": {"N": "64"}}


def test_a_direct_call_may_be_a_fans_by_the_settings(
    asked: list[int], servers: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert handler([check(globalUserId="g1")])[0]["status"] == "ELIGIBLE"
    chosen = servers.settings.eligibility.model_copy(update={"direct_callers": "fan"})
    monkeypatch.setattr(
        module, "_runtime", Runtime(servers.settings.model_copy(update={"eligibility": chosen}))
    )
    assert handler([check(globalUserId="g1")])[0]["reasons"] == [
        {"code": "INVALID_FIELD", "message": "Something that you filled in cannot be read. Please check it."}
    ]


def test_a_fan_learns_nothing_of_an_environment_that_is_not_set_up(
    asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Runtime:
        raise UsageError("mongo.uri: set it to mongodb://internal.example")

    monkeypatch.setattr(Runtime, "load", staticmethod(fail))
    for event in (appsync(**check()), [appsync(**check())], {"info": INFO}):
        assert handler(event) == {
            "errorType": "UsageError",
            "errorMessage": "eligibility cannot be checked at the moment",
        }


def test_an_environment_that_is_not_set_up_is_an_error_and_is_tried_again(
    asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Runtime:
        raise UsageError("set CONFIG_ENV")

    good = Runtime.load
    monkeypatch.setattr(Runtime, "load", staticmethod(fail))
    assert handler([]) == {"errorType": "UsageError", "errorMessage": "set CONFIG_ENV"}
    monkeypatch.setattr(Runtime, "load", staticmethod(good))
    assert handler([]) == []


def test_any_event_is_answered_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_all(_: Runtime, items: object, *, callers: list[Caller]) -> list[dict[str, Any]]:
        if not isinstance(items, list):
            raise RequestError("expected a list of checks")
        assert len(callers) == len(items)
        asked = [read_check(item, caller) for item, caller in zip(items, callers, strict=True)]
        return [{"fan": each.is_a_fans} for each in asked]

    monkeypatch.setattr(module, "check_eligibility", check_all)
    runtime = cast(Runtime, SimpleNamespace(settings=SimpleNamespace(eligibility=EligibilitySettings())))

    @given(EVENTS | st.lists(EVENTS, max_size=3))
    @settings(max_examples=300)
    def answered(event: Any) -> None:
        events = event if isinstance(event, list) else [event]
        try:
            answer = module.respond(runtime, event)
        except RequestError:
            return
        for each, said in zip(events, answer if isinstance(event, list) else [answer], strict=True):
            is_appsync = isinstance(each, dict) and bool({"arguments", "info"} & each.keys())
            for one in said if isinstance(said, list) else [said]:
                assert one["fan"] is is_appsync

    answered()


def test_a_start_without_the_secret_store_is_answered_in_time_and_tried_again(
    servers: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment_of(servers).items():
        monkeypatch.setenv(name, value)
    for name, value in {"AWS__ENDPOINT_URL": "http://127.0.0.1:9", "RETRY__ATTEMPTS": "1"}.items():
        monkeypatch.setenv(f"REGWORKERS_{name}", value)
    monkeypatch.setenv(ENVIRONMENT_SECRET, "eligibility-settings")
    monkeypatch.setattr(module, "_runtime", None)
    waits: list[float] = []
    make = AwsClients.client

    def client(clients: AwsClients, service: str, **options: Any) -> Any:
        made = make(clients, service, **options)
        waits.append(made.meta.config.read_timeout)
        return made

    monkeypatch.setattr(AwsClients, "client", client)
    refused = handler([check()])
    assert refused["errorType"] == "TransientFailure" and "secretsmanager" in refused["errorMessage"]
    fans = handler(appsync(**check()))
    assert fans == {"errorType": "TransientFailure", "errorMessage": module._NOT_NOW}
    assert max(waits) <= servers.settings.eligibility.read_seconds
    servers.secrets.create("eligibility-settings", "{}", description="of a test")
    monkeypatch.setenv("REGWORKERS_AWS__ENDPOINT_URL", str(servers.settings.aws.endpoint_url))
    assert handler([]) == []
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "the secret eligibility-settings, which REGWORKERS_ENVIRONMENT_SECRET names, should be"),
        ('{"PATH": "/tmp"}', "should be a JSON object of texts by REGWORKERS_* names"),
        ('{"REGWORKERS_SAVE__VISIBILITY_SECONDS": "x"}', "save.visibilitySeconds"),
    ],
)
def test_a_secret_with_settings_that_cannot_be_used_is_named_but_not_to_a_fan(
    servers: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    says: str,
) -> None:
    if content is not None:
        servers.secrets.create("eligibility-settings", content, description="of a test")
    for name, value in environment_of(servers).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("REGWORKERS_SAVE__VISIBILITY_SECONDS")
    monkeypatch.setenv(ENVIRONMENT_SECRET, "eligibility-settings")
    monkeypatch.setattr(module, "_runtime", None)
    assert says in handler([check()])["errorMessage"]
    fans = handler(appsync(**check()))
    assert fans["errorType"] == "UsageError" and "eligibility-settings" not in fans["errorMessage"]
    line = orjson.loads(capsys.readouterr().err.splitlines()[0])
    structlog.reset_defaults()
    assert says in line["error"] and line["requestId"] == "none"
