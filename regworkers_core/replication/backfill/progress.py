"""How far each backfill has come, in `worker-leases`: what survives a kill and what a pause is told by.

- `PK=BACKFILLS, SK=<id>`: the run's lease, whose token fences, with the run's parameters and state.
- `PK=BACKFILL#<id>, SK=SEGMENT#<n>`: position and counts of a segment, written under the run's token.
- `PK=BACKFILL#<id>, SK=CONTROL`: what an operator wants of it, obeyed by whoever runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.leases import Lease, LeaseHolder, LeaseKey, LeaseRow, LeaseTable

RUNS = "BACKFILLS"
RunState = Literal["running", "paused", "finished"]
Wanted = Literal["running", "paused"]
# Watched so often within one lease time, while somebody else may hold it.
_LOOKS_PER_LEASE = 10
_WRITE_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a backfill is of; `started_at` is ISO-8601, `estimate` the expected number of entries if known."""

    campaign_id: str | None
    segments: int
    started_at: str
    estimate: int | None = None

    def as_state(self, state: RunState, at: str) -> dict[str, str]:
        return {
            "state": state,
            "changedAt": at,
            "campaignId": self.campaign_id or "",
            "segments": str(self.segments),
            "startedAt": self.started_at,
            "estimate": "" if self.estimate is None else str(self.estimate),
        }

    @classmethod
    def of(cls, state: Mapping[str, str]) -> Parameters:
        estimate = state.get("estimate", "")
        return cls(
            state.get("campaignId") or None,
            int(state.get("segments") or 1),
            state.get("startedAt", ""),
            int(estimate) if estimate else None,
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """`last_key` is the table key up to which everything is confirmed, None before the first."""

    number: int
    last_key: Mapping[str, Any] | None = None
    sent: int = 0
    finished: bool = False


class Superseded(Exception):
    """Another run of this backfill took over: this one must not write any more."""


class BackfillRows:
    """The rows of one backfill. Every method raises TransientFailure."""

    def __init__(self, table: LeaseTable, backfill_id: str) -> None:
        self._table = table
        self.id = backfill_id
        self._rows: dict[int, LeaseRow] = {}

    def run(self) -> LeaseRow | None:
        """The row of the run with its state, None for a backfill that was never started."""
        row = self._table.get(LeaseKey(RUNS, self.id))
        return row if row is not None and row.state else None

    def known(self) -> list[str]:
        """The ids of all backfills."""
        return [row.key.sk for row in self._table.rows(RUNS)]

    def acquire(
        self, holder: LeaseHolder, *, lease_seconds: float, wait: Callable[[float], bool]
    ) -> Lease | None:
        """The run's lease, after one lease time of watching if its owner died; None when `wait` was
        interrupted. Raises UsageError while it is running elsewhere.
        """
        key = LeaseKey(RUNS, self.id)
        first = row = self._table.get(key)
        for _ in range(2 * _LOOKS_PER_LEASE):
            lease = holder.take(key, row)
            if lease is not None:
                return lease
            if wait(lease_seconds / _LOOKS_PER_LEASE):
                return None
            row = self._table.get(key)
            if row is not None and first is not None and row.owner and row.counter != first.counter:
                break
        raise UsageError(f"backfill {self.id} is running elsewhere: pause it there first")

    def claim(self, token: int, segments: int, *, afresh: bool) -> list[Segment]:
        """Every segment's progress, each row now under `token`: an older run cannot write to it any more.
        `afresh` starts each from the beginning.
        """
        found = []
        for number in range(segments):
            key = LeaseKey(f"BACKFILL#{self.id}", _sort_key(number))
            for _ in range(_WRITE_ROUNDS):
                seen = self._table.get(key)
                old = seen or LeaseRow(key)
                if old.token > token:
                    raise Superseded
                state = {} if afresh else old.state
                mine = replace(old, token=token, counter=old.counter + 1, state=state)
                if self._write(mine, seen):
                    break
            else:
                raise Superseded
            self._rows[number] = mine
            found.append(_segment(number, mine.state))
        return found

    def save(self, segment: Segment) -> None:
        """Store a claimed segment's progress. Raises Superseded after a takeover."""
        seen = self._rows[segment.number]
        state = {
            "lastKey": orjson.dumps(segment.last_key).decode() if segment.last_key else "",
            "sent": str(segment.sent),
            "finished": "true" if segment.finished else "",
        }
        mine = replace(seen, counter=seen.counter + 1, state=state)
        if not self._write(mine, seen):
            raise Superseded
        self._rows[segment.number] = mine

    def segments(self, segments: int) -> list[Segment]:
        """The first so many as stored; an earlier round may have had more."""
        found = {row.key.sk: row.state for row in self._table.rows(f"BACKFILL#{self.id}")}
        return [_segment(number, found.get(_sort_key(number), {})) for number in range(segments)]

    def want(self, wanted: Wanted) -> None:
        """Tell whoever runs it."""
        for _ in range(_WRITE_ROUNDS):
            seen = self._table.get(self._control)
            old = seen or LeaseRow(self._control)
            if self._write(replace(old, counter=old.counter + 1, state={"wanted": wanted}), seen):
                return
        raise UsageError(f"backfill {self.id}: others change its control row all the time, try again")

    def pause_wanted(self) -> bool:
        row = self._table.get(self._control)
        return row is not None and row.state.get("wanted") == "paused"

    @property
    def _control(self) -> LeaseKey:
        return LeaseKey(f"BACKFILL#{self.id}", "CONTROL")

    def _write(self, row: LeaseRow, seen: LeaseRow | None) -> bool:
        # A write whose answer got lost is refused when it is repeated, and yet it was ours.
        return self._table.swap(row, seen) or self._table.get(row.key) == row


def _sort_key(number: int) -> str:
    return f"SEGMENT#{number:04d}"


def _segment(number: int, state: Mapping[str, str]) -> Segment:
    last_key = state.get("lastKey", "")
    return Segment(
        number,
        orjson.loads(last_key) if last_key else None,
        int(state.get("sent") or 0),
        bool(state.get("finished")),
    )
