"""A boto3 client of a simulated service: the same methods, arguments, answers and errors, without a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError

from tests.simulation.gate import Gate, OpenGate

# Every answer of botocore has it.
METADATA: Mapping[str, Any] = {"HTTPStatusCode": 200, "HTTPHeaders": {}, "RetryAttempts": 0}
Hook = Callable[..., None]


class Refused(Exception):
    """What a server says no with; the client raises it as the ClientError of its operation."""

    def __init__(self, code: str, message: str = "", status: int = 400, **more: Any) -> None:
        super().__init__(code)
        self.code, self.message, self.status, self.more = code, message, status, more

    def error(self, operation: str) -> ClientError:
        metadata = {**METADATA, "HTTPStatusCode": self.status}
        response = {"Error": {"Code": self.code, "Message": self.message}, "ResponseMetadata": metadata}
        return exception(self.code)({**response, **self.more}, operation)


@cache
def exception(code: str) -> type[ClientError]:
    """The class of an error code, as `client.exceptions` has it."""
    return type(code.rpartition(".")[2], (ClientError,), {})


class _Exceptions:
    def __getattr__(self, name: str) -> type[ClientError]:
        return exception(name)


class _Service(NamedTuple):
    service_name: str


class _Model(NamedTuple):
    """As much of botocore's model of an operation as the guards of the tests read."""

    name: str
    service_model: _Service


_EVENT = "before-parameter-build"


class _Config:
    read_timeout = 10.0


class _Meta:
    """`config` has the time-out that a real client would keep. `events` takes hooks that run before each call, or
    before those of one operation.
    """

    def __init__(self, service: str, region: str) -> None:
        self.service_model, self.region_name = _Service(service), region
        self.hooks: list[Hook] = []
        self.events, self.config = self, _Config()

    def register(self, event: str, hook: Hook) -> None:
        if not f"{event}.".startswith(f"{_EVENT}."):
            raise NotImplementedError(event)

        def of_operation(model: _Model, **arguments: Any) -> None:
            if event.endswith(f".{model.name}"):
                hook(model=model, **arguments)

        self.hooks.append(hook if event == _EVENT else of_operation)


class Client:
    """One for each service and process. `service` is botocore's name of it, `named` that of the gate."""

    def __init__(self, service: str, server: Any, gate: Gate, named: str = "") -> None:
        self._service, self._server, self._gate = service, server, gate
        self._named = named or service
        self.exceptions = _Exceptions()
        self.meta = _Meta(service, "us-east-1")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        method = getattr(self._server, name, None)
        if method is None or not getattr(method, "is_operation", False):
            raise AttributeError(f"the simulated {self._service} has no {name}")
        made = self._guarded(method, operation_of(name))
        made.__name__ = name
        # The next time it is found without this function.
        self.__dict__[name] = made
        return made

    def _guarded(self, method: Callable[..., Any], operation: str) -> Callable[..., Any]:
        server, gate, hooks = self._named, self._gate, self.meta.hooks
        before, after = gate.before, gate.after
        if isinstance(gate, OpenGate):
            method = _alone(method, gate.lock)
        model = _Model(operation, self.meta.service_model)

        def call(**arguments: Any) -> Any:
            for hook in hooks:
                hook(params=arguments, model=model)
            before(server, operation, arguments)
            try:
                answer = method(gate, **arguments)
            except Refused as refused:
                # A refusal may get lost, too.
                after(server, operation, arguments)
                raise refused.error(operation) from None
            after(server, operation, arguments)
            answer.setdefault("ResponseMetadata", METADATA)
            return answer

        return call

    def get_paginator(self, name: str) -> Paginator:
        return Paginator(getattr(self, name), *PAGES[name])

    def upload_file(self, filename: str, bucket: str, key: str, Config: Any = None) -> None:
        """S3's helper, without its threads and parts. It hides the service's error."""
        try:
            self.put_object(Bucket=bucket, Key=key, Body=Path(filename).read_bytes())
        except ClientError as error:
            place = f"{bucket}/{key}"
            raise S3UploadFailedError(f"Failed to upload {filename} to {place}: {error}") from error


# The tokens of paged operations: members of the answer, and parameters of the next call.
PAGES = {
    "scan": (("LastEvaluatedKey",), ("ExclusiveStartKey",)),
    "query": (("LastEvaluatedKey",), ("ExclusiveStartKey",)),
    "list_object_versions": (("NextKeyMarker", "NextVersionIdMarker"), ("KeyMarker", "VersionIdMarker")),
    "list_objects_v2": (("NextContinuationToken",), ("ContinuationToken",)),
}


class Paginator(NamedTuple):
    ask: Callable[..., Any]
    tokens: tuple[str, ...]
    parameters: tuple[str, ...]

    def paginate(self, **arguments: Any) -> Iterator[Any]:
        while True:
            page = self.ask(**arguments)
            yield page
            if not page.get(self.tokens[0]):
                return
            arguments |= {name: page[token] for token, name in zip(self.tokens, self.parameters, strict=True)}


def operation(method: Any) -> Any:
    """Marks a method of a server as an operation of its service. It takes the gate of its caller first."""
    method.is_operation = True
    return method


def _alone(method: Callable[..., Any], lock: Lock) -> Callable[..., Any]:
    def call(gate: Gate, **arguments: Any) -> Any:
        with lock:
            return method(gate, **arguments)

    return call


@cache
def operation_of(name: str) -> str:
    """`batch_get_item` -> `BatchGetItem`."""
    return "".join(part.capitalize() for part in name.split("_"))
