"""The HTTP contract of the four services, fuzzed from its own description."""

from __future__ import annotations

import re
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from regworkers_local.service_stores import Stores
from regworkers_local.services import TOKEN, make_app
from tests.adapters.http.test_answers import ENTRY, put_campaign
from tests.support.services import Served

OURS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def contract(module_services: Served) -> Any:
    runtime = module_services.runtime
    return schemathesis.openapi.from_asgi(
        "/openapi.json", make_app(Stores.of(runtime.mongo, runtime.names.prefix))
    )


OPERATIONS = [
    ("GET", "/users/{globalUserId}"),
    ("GET", "/campaigns/{campaignId}/codes/available"),
    ("GET", "/campaigns/{campaignId}"),
    ("GET", "/{campaignId}/entries/{entryId}"),
    ("GET", "/health"),
    ("GET", "/_faults"),
    ("PUT", "/_faults/{service}"),
    ("DELETE", "/_faults"),
]


def test_every_operation_of_the_description_is_fuzzed(contract: Any) -> None:
    described = {
        (method.upper(), path) for path, each in contract.raw_schema["paths"].items() for method in each
    }
    assert described == set(OPERATIONS)


def test_the_page_of_documentation_shows_every_operation_and_loads_nothing_from_anywhere(
    module_services: Served,
) -> None:
    runtime = module_services.runtime
    client = TestClient(make_app(Stores.of(runtime.mongo, runtime.names.prefix)))
    page = client.get("/docs")
    assert page.status_code == 200
    for method, path in OPERATIONS:
        assert f"{method.lower()}</span> <code>{path}</code>" in page.text
    assert re.findall(r'(?:src|href)="([^"]*)"', page.text) == ["openapi.json"]
    assert "<script" not in page.text and "@import" not in page.text and "url(" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert client.get("/redoc").status_code == 404


# Where a request carries nothing, nothing in it can be wrong.
FUZZED = [
    (*operation, mode)
    for operation in OPERATIONS
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or "{" in operation[1]
]


@pytest.mark.parametrize(("method", "path", "mode"), FUZZED, ids=lambda part: str(part))
def test_any_request_good_or_bad_is_answered_as_described(
    contract: Any, method: str, path: str, mode: GenerationMode
) -> None:
    operation = contract[path][method]

    @given(operation.as_strategy(generation_mode=mode))
    @settings(max_examples=15, derandomize=True, suppress_health_check=list(HealthCheck))
    def fuzz(case: schemathesis.Case) -> None:
        case.call_and_validate(headers=OURS)

    fuzz()


RECORDS = [
    ("/users/{globalUserId}", {"globalUserId": "gu-1"}),
    ("/campaigns/{campaignId}/codes/available", {"campaignId": "summer"}),
    ("/campaigns/{campaignId}", {"campaignId": "summer"}),
    ("/{campaignId}/entries/{entryId}", {"campaignId": "summer", "entryId": "e1"}),
]


@pytest.mark.parametrize(("path", "ids"), RECORDS)
def test_an_existing_record_is_as_described_and_requires_the_token(
    contract: Any, services: Served, path: str, ids: dict[str, str]
) -> None:
    services.users.insert_one({"_id": "gu-1", "verifiedPhone": True, "blocked": False, "region": "DE"})
    services.runtime.database["entries"].insert_one({"_id": "summer:e1", **ENTRY})
    put_campaign(services)
    case = contract[path]["GET"].Case(path_parameters=ids)
    assert case.call_and_validate(headers=OURS).status_code == 200
    assert case.call(headers={"Authorization": "Bearer other"}).status_code == 401
    assert case.call().status_code == 401
