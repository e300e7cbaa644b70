"""What all calls to a DynamoDB table share: values, batches, conditions and the meaning of their errors."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from fairdraw import scheduling
from regworkers_core.adapters.aws.answers import AwsRefusal, meaning_of_code
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Dependency, P, RetryPolicy, T, retry_parts

V = TypeVar("V")
# Limits of DynamoDB: keys of one BatchGetItem, statements of one BatchExecuteStatement.
MAX_GET = 100
MAX_STATEMENTS = 25
# The code of a statement whose item does not meet its condition, or does not exist.
CHANGED = "ConditionalCheckFailed"
Item = dict[str, Any]


class StatementOutcome(NamedTuple):
    code: str  # of the error; empty: there is none
    failure: TransientFailure | None  # None: the statement cannot be repeated


class TableClient:
    """Calls to one table by a boto3 client. `policy`, by default that of the dependency, spaces repeats of throttled
    parts.

    Every method raises TransientFailure when DynamoDB cannot answer, also when it stays too busy for a part of a batch,
    and UsageError for a missing table.
    """

    def __init__(
        self,
        client: Any,
        dependency: Dependency,
        table: str,
        *,
        policy: RetryPolicy | None = None,
        sleep: Callable[[float], object] = scheduling.sleep,
        monotonic: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        self._client, self._dependency, self.table = client, dependency, table
        self._policy = policy or dependency.policy
        self._sleep, self._monotonic = sleep, monotonic

    def _call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._call_until(math.inf, function, *args, **kwargs)

    def _call_until(self, end: float, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """No attempt except the first begins after `end` (monotonic seconds)."""
        within = None if end == math.inf else end - self._monotonic()
        try:
            return self._dependency.within(within, function, *args, **kwargs)
        except AwsRefusal as error:
            if error.code == "ResourceNotFoundException":
                raise _missing(self.table) from None
            raise

    def _conditional(self, write: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Whether the condition of the write held."""
        try:
            self._call(write, *args, **kwargs)
        except AwsRefusal as error:
            if error.code != "ConditionalCheckFailedException":
                raise
            return False
        return True

    def _get_some(
        self, keys: Sequence[tuple[str, str]], *, end: float = math.inf, consistent: bool = True
    ) -> list[Item]:
        """Reads of up to MAX_GET distinct keys, as attribute values, whole: a projection makes no read
        cheaper. Keys that stay unprocessed raise TransientFailure, so that "could not read" never means "absent".
        """
        found: list[Item] = []

        def ask(pending: Sequence[Item]) -> list[Item]:
            request = {self.table: {"Keys": pending, "ConsistentRead": consistent}}
            answer = self._call_until(end, self._client.batch_get_item, RequestItems=request)
            found.extend(answer.get("Responses", {}).get(self.table, ()))
            left: list[Item] = answer.get("UnprocessedKeys", {}).get(self.table, {}).get("Keys", [])
            return left

        self._until_done([key_of(*key) for key in keys], ask, "keys", end=end)
        return found

    def _until_done(
        self,
        parts: Sequence[V],
        ask: Callable[[Sequence[V]], list[V]],
        what: str,
        *,
        end: float = math.inf,
    ) -> None:
        """Send all `parts` of a batch until none is left; `ask` returns those that DynamoDB throttled."""

        def noted(pending: Sequence[V]) -> list[V]:
            left = ask(pending)
            self._dependency.note_parts(served=len(pending) - len(left), throttled=len(left))
            return left

        left = retry_parts(
            parts, noted, self._policy, self._sleep, whole=True, end=end, monotonic=self._monotonic
        )
        if left:
            raise TransientFailure(self._dependency.name, f"{len(left)} {what} stayed unprocessed")

    def _statement_outcome(self, response: Mapping[str, Any]) -> StatementOutcome:
        """What one response of BatchExecuteStatement says. Raises UsageError if access is refused or the table is
        missing.
        """
        code = str(response.get("Error", {}).get("Code") or "")
        if code == "ResourceNotFound":
            raise _missing(self.table)
        meaning = meaning_of_code(self._dependency.name, code, "BatchExecuteStatement") if code else None
        if isinstance(meaning, UsageError):
            raise meaning
        return StatementOutcome(code, meaning)


def key_of(pk: str, sk: str) -> Item:
    return {"PK": {"S": pk}, "SK": {"S": sk}}


def _missing(name: str) -> UsageError:
    return UsageError(f"table {name} does not exist: run `regworkers provision`")


# Attribute values to plain Python and back. Fast, because this runs for every field of every entry.
_INT64 = 2**63


def _number(text: str) -> int | float:
    """An int where the replica can hold it (64 bits), else the nearest float."""
    try:
        value = int(text)
    except ValueError:
        return float(text)
    return value if -_INT64 <= value < _INT64 else float(value)


def plain(value: Mapping[str, Any]) -> Any:
    """One attribute value as str, int, float, bool, None, bytes, list or dict; sets become sorted lists.

    Binary values may still be the base64 text of the wire.
    """
    ((kind, content),) = value.items()
    if kind == "S" or kind == "BOOL":
        return content
    if kind == "N":
        return _number(content)
    if kind == "L":
        return [plain(item) for item in content]
    if kind == "M":
        return {name: plain(item) for name, item in content.items()}
    if kind == "NULL":
        return None
    if kind == "NS":
        return sorted(_number(item) for item in content)
    if kind == "SS":
        return sorted(content)
    return _binary(content) if kind == "B" else sorted(_binary(item) for item in content)


def _binary(content: str | bytes) -> bytes:
    return base64.b64decode(content) if isinstance(content, str) else content


def plain_item(item: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A whole item."""
    return {name: plain(value) for name, value in item.items()}


def attribute(value: Any) -> dict[str, Any]:
    """A plain value as an attribute value. Raises TypeError for a type that DynamoDB does not have."""
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int | float):
        return {"N": str(value)}
    if value is None:
        return {"NULL": True}
    if isinstance(value, bytes):
        return {"B": value}
    if isinstance(value, list | tuple):
        return {"L": [attribute(item) for item in value]}
    if isinstance(value, Mapping):
        return {"M": attributes(value)}
    raise TypeError(f"no attribute value for {type(value).__name__}")


def attributes(item: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A whole item as attribute values."""
    return {name: attribute(value) for name, value in item.items()}
