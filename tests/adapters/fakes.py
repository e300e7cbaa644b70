"""Clients that answer as a script says, and one that loses an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError
from pymongo.errors import NetworkTimeout

from regworkers_core.engine.dependency import CircuitBreaker, Classify, Dependency, RetryPolicy


def client_error(code: str, status: int = 400) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Call")


def dependency(name: str, classify: Classify, attempts: int = 3) -> Dependency:
    """Retries without waiting; its breaker never opens."""
    policy = RetryPolicy(attempts=attempts, first_cap_seconds=0, last_cap_seconds=0)
    breaker = CircuitBreaker(name, failures=10**9, reset_seconds=1, clock=lambda: 0.0)
    return Dependency(name, classify, policy=policy, breaker=breaker)


def pauses(attempts: int) -> RetryPolicy:
    """Between the requests for what stayed unprocessed."""
    return RetryPolicy(attempts=attempts, first_cap_seconds=1, last_cap_seconds=4)


class Sleeps:
    def __init__(self) -> None:
        self.slept: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)


class FakeClient:
    """Any method may be called; `answers[method]` makes the answer, or is a list of answers and errors to be
    given one a call. `calls` has (method, arguments) in order.
    """

    def __init__(self, **answers: Callable[..., Any] | list[Any]) -> None:
        self._answers = answers
        self.calls: list[tuple[str, Mapping[str, Any]]] = []

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(**arguments: Any) -> Any:
            self.calls.append((method, arguments))
            answer = self._answers[method]
            if callable(answer):
                return answer(**arguments)
            given = answer.pop(0)
            if isinstance(given, Exception):
                raise given
            return given(**arguments) if callable(given) else given

        return call

    def of(self, method: str) -> list[Mapping[str, Any]]:
        """The arguments of each call of one method."""
        return [arguments for called, arguments in self.calls if called == method]


class CommitsAndThenTimesOut:
    """A collection whose next bulk write is done and then seems to have failed."""

    def __init__(self, collection: Any, times: int = 1) -> None:
        self._collection = collection
        self.left = times

    def bulk_write(self, operations: Sequence[Any], **options: Any) -> Any:
        try:
            return self._collection.bulk_write(operations, **options)
        finally:
            if self.left:
                self.left -= 1
                raise NetworkTimeout("the answer got lost")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._collection, name)
