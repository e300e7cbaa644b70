"""What all calls to a DynamoDB table have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import ClientError

from regworkers_core.adapters.aws.clients import error_code
from regworkers_core.domain.reasons import UsageError


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
