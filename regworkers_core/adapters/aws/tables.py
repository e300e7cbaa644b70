"""What all calls to a DynamoDB table have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError

from regworkers_core.adapters.aws.clients import error_code, meaning_of_code
from regworkers_core.domain.reasons import TransientFailure, UsageError


@contextmanager
def known_table(name: str) -> Iterator[None]:
    """Calls to a table that is missing raise UsageError."""
    try:
        yield
    except ClientError as error:
        if error_code(error) == "ResourceNotFoundException":
            raise missing(name) from None
        raise


def missing(name: str) -> UsageError:
    return UsageError(f"table {name} does not exist: run `regworkers provision`")


# Of a statement: its item is not as its condition has it, or is not there.
CHANGED = "ConditionalCheckFailed"


def statement_outcome(
    dependency: str, table: str, response: Mapping[str, Any]
) -> tuple[str, TransientFailure | None]:
    """Of one response of BatchExecuteStatement: the code of its error, empty where there is none, and what to call it
    where the statement can be repeated. Raises UsageError where access is refused or the table is missing.
    """
    code = str(response.get("Error", {}).get("Code") or "")
    if code == "ResourceNotFound":
        raise missing(table)
    meaning = meaning_of_code(dependency, code, "BatchExecuteStatement") if code else None
    if isinstance(meaning, UsageError):
        raise meaning
    return code, meaning
