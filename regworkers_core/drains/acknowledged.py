"""When each drain last acknowledged something: one row for each drain in `worker-leases`, which outlives its runs.

Alerts compare the row at two evaluations: work that waits while the counter does not move is not worked off, whether no
drain runs, one hangs, or one cannot reach what it needs. The counter is compared, never the time of another machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from regworkers_core.adapters.aws.lease_table import DynamoLeaseTable
from regworkers_core.domain.snapshot import LastAcknowledged
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.heartbeat import BEAT_SECONDS, PeriodicWriter, row_that_stays
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.engine.leases import LeaseRow, LeaseTable

_AT = "acknowledgedAt"


class AcknowledgementWriter(PeriodicWriter):
    """A context manager around a drain, which leaves its report here as it goes. `clock` is in epoch seconds."""

    def __init__(self, table: Callable[[], LeaseTable], drain: str, clock: Callable[[], float]) -> None:
        super().__init__(
            f"{drain}-acknowledged",
            self.write,
            self.write,
            every_seconds=BEAT_SECONDS,
            warning="last acknowledgement not written",
        )
        self._table, self._key, self._clock = table, row_that_stays(drain), clock
        self._written = 0
        self.report: DrainReport | None = None

    def write(self) -> None:
        """Move the counter if this drain has acknowledged something since the last call. Raises TransientFailure."""
        number = self.report.acknowledged if self.report else 0
        if number == self._written:
            return
        table = self._table()
        seen = table.get(self._key)
        state = {_AT: iso(self._clock())}
        # If another run was faster, the counter has moved.
        table.swap(LeaseRow(self._key, counter=1 + (seen.counter if seen else 0), state=state), seen)
        self._written = number


def last_acknowledged(table: DynamoLeaseTable, drains: Iterable[str]) -> tuple[LastAcknowledged, ...]:
    """The rows of the drains that ever acknowledged something. Raises TransientFailure."""
    keys = {row_that_stays(drain): drain for drain in drains}
    return tuple(
        LastAcknowledged(keys[key], row.counter, row.state.get(_AT, ""))
        for key, row in table.several(list(keys)).items()
    )
