"""Dagster's GraphQL API over HTTP. The core knows nothing else of Dagster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx2
import orjson

from regworkers_core.adapters.local_instance import DAGSTER_HEADER
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Dependency

DEPENDENCY = "dagster"


class DagsterApi:
    """Asks Dagster. `url` is that of the UI, empty if unknown. `timeout_seconds` bounds each step of a request.
    `instance_id` reads the id that a Dagster of the embedded stack answers with; None: it may be any.
    """

    def __init__(
        self,
        url: str,
        dependency: Dependency,
        *,
        timeout_seconds: float,
        instance_id: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._url, self._dependency, self._timeout_seconds = url.rstrip("/"), dependency, timeout_seconds
        self._instance_id = instance_id

    def ask(self, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The `data` of the answer. Raises TransientFailure without a valid answer, UsageError without an address."""
        if not self._url:
            raise UsageError("no Dagster address: set REGWORKERS_DAGSTER__URL to that of its UI")
        return self._dependency.call(self._once, query, variables or {})

    def _once(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        answer = httpx2.post(
            f"{self._url}/graphql",
            content=orjson.dumps({"query": query, "variables": variables}),
            headers={"content-type": "application/json"},
            timeout=self._timeout_seconds,
        )
        ours = self._instance_id()
        if ours is not None and answer.headers.get(DAGSTER_HEADER) != ours:
            raise TransientFailure(DEPENDENCY, f"another instance's Dagster answers at {self._url}")
        if answer.status_code in (401, 403):
            raise UsageError(f"Dagster refuses us with status {answer.status_code}: see dagster.url")
        if answer.status_code != 200:
            raise TransientFailure(DEPENDENCY, f"status {answer.status_code}")
        document = orjson.loads(answer.content)
        if (
            not isinstance(document, dict)
            or not isinstance(document.get("data"), dict)
            or "errors" in document
        ):
            raise TransientFailure(DEPENDENCY, "its answer is not valid")
        data: dict[str, Any] = document["data"]
        return data


def classify_dagster(error: Exception) -> Exception:
    """Everything without a valid answer is an outage."""
    if isinstance(error, httpx2.HTTPError | httpx2.InvalidURL | orjson.JSONDecodeError):
        return TransientFailure(DEPENDENCY, type(error).__name__)
    return error
