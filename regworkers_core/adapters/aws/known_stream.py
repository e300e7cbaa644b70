"""What is known of a table's stream, as the one who lists its shards leaves it in the row of its lease."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from regworkers_core.engine.leases import LeaseHolder, LeaseKey, LeaseTable

_ARN, _SHARD, _COMPLETE, _ANSWERED_AT = "arn", "shard", "complete", "answeredAt"


@dataclass(frozen=True, slots=True)
class KnownStream:
    """The stream's `arn`, one shard of it, whether all shards were listed once, and the ISO time of the last answer."""

    arn: str
    shard_id: str = ""
    complete: bool = False
    answered_at: str = ""

    @classmethod
    def of(cls, state: Mapping[str, str]) -> KnownStream | None:
        """None before the first listing."""
        arn = state.get(_ARN)
        if not arn:
            return None
        return cls(arn, state.get(_SHARD, ""), _COMPLETE in state, state.get(_ANSWERED_AT, ""))

    def as_state(self) -> dict[str, str]:
        """Of the lease's row."""
        complete = {_COMPLETE: "true"} if self.complete else {}
        return {_ARN: self.arn, _SHARD: self.shard_id, _ANSWERED_AT: self.answered_at, **complete}


def lister_key(table_name: str) -> LeaseKey:
    """The row of the lease that lets one process list the shards of the table's stream."""
    return LeaseHolder.key_of(f"discovery:{table_name}")


def known_stream(leases: LeaseTable, table_name: str) -> KnownStream | None:
    """None before the first listing of its shards. Raises TransientFailure."""
    row = leases.get(lister_key(table_name))
    return None if row is None else KnownStream.of(row.state)
