"""Point-in-time recovery of a table: any second of the last 35 days can be had again, as another table."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from regworkers_core.adapters.aws.clients import error_code
from regworkers_core.domain.reasons import TransientFailure

# What an emulator answers to a call that it does not know.
_UNKNOWN_CALL = frozenset({"UnknownOperationException", "NotImplemented", "InternalFailure"})
_PAUSE_SECONDS = 0.5


def keep_history(
    client: Any,
    call: Callable[..., Any],
    name: str,
    *,
    give_up: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Switch it on where it is off; whether that was needed. A new table is not ready for it at once: it is asked
    again until `give_up` (on `clock`), then TransientFailure.
    """
    try:
        stands = call(client.describe_continuous_backups, TableName=name)
    except ClientError as error:
        if error_code(error) in _UNKNOWN_CALL:
            return False
        raise
    recovery = stands["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
    if recovery.get("PointInTimeRecoveryStatus") == "ENABLED":
        return False
    while True:
        try:
            call(
                client.update_continuous_backups,
                TableName=name,
                PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True},
            )
            return True
        except ClientError as error:
            if error_code(error) != "ContinuousBackupsUnavailableException":
                raise
            if clock() > give_up:
                raise TransientFailure("dynamodb", f"table {name} cannot keep its history yet") from None
            sleep(_PAUSE_SECONDS)
