"""How one drain at a time works on the campaigns, each for a while under the lease of its draw.

A phase is decided only under that lease, so what is true of a draw when work is handed out stays true until it is done.
"""

from __future__ import annotations

from collections.abc import Callable

from fairdraw import scheduling
from regworkers_core.adapters.mongo.draws import lease_name
from regworkers_core.engine.leases import PATIENCE_LEASES, POLL_SHARE, Lease, LeaseHolder
from regworkers_core.runtime import Runtime

# After a read that found nothing, and longer after each further one.
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 1.0
# How long the lease of a draw may be kept, so that a run of that draw gets it while it waits, and how long it is then
# left to others, which is longer than their polling interval; both as shares of the lease time.
_HOLD_LEASES = 0.5
_LEAVE_LEASES = 2 * POLL_SHARE


class Leader:
    """The leases of one drain: its own, called `name`, and that of the draw on which it works."""

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        *,
        owner: str,
        sleep: Callable[[float], object],
        clock: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        self._name, self._sleep, self._clock = name, sleep, clock
        self._lease_seconds = runtime.settings.selection.lease_seconds
        self._holder = LeaseHolder(runtime.leases, owner, lease_seconds=self._lease_seconds, clock=clock)
        self.lease: Lease | None = None
        # Since when (monotonic seconds) another holder of the lease has been observed, and when the last check began.
        self._refused_since: float | None = None
        self._checked_at = 0.0
        # The lease of the draw that is worked on, since when, and until when draws are left to others.
        self.draw: Lease | None = None
        self.draw_of, self._draw_since = "", 0.0
        self._leave_until: dict[str, float] = {}
        self._pause_seconds = _PAUSE_SECONDS

    def leads(self) -> bool:
        """Whether this drain has its own lease now. The other one's is kept, whether or not it is lost."""
        if self.lease is None or self.lease.lost:
            self._checked_at = self._clock()
            self.lease = self._holder.acquire(self._name)
        if self.lease is not None:
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = self._clock()
        return self.lease is not None

    def holds(self) -> bool:
        """Whether both leases are still held; threads ask right before they write what others see."""
        return not any(lease is None or lease.lost for lease in (self.lease, self.draw))

    def take_draw(self, campaign_id: str) -> bool:
        """Take the lease of a draw, in the place of another. Returns False while a run of that draw works, or may be
        waiting for it.
        """
        if self.draw_of == campaign_id and not self.kept_too_long:
            return True
        self.free_draw()
        if self._leave_until.get(campaign_id, 0.0) > self._clock():
            return False
        self.draw = self._holder.acquire(lease_name(campaign_id))
        self.draw_of, self._draw_since = campaign_id, self._clock()
        return self.draw is not None

    @property
    def kept_too_long(self) -> bool:
        """Whether the draw's lease is lost, or to be freed."""
        kept = self._clock() - self._draw_since
        return self.draw is None or self.draw.lost or kept >= self._lease_seconds * _HOLD_LEASES

    def free_draw(self) -> None:
        lease, self.draw = self.draw, None
        if lease is None:
            return
        if self._clock() - self._draw_since >= self._lease_seconds * _HOLD_LEASES:
            self._leave_until[self.draw_of] = self._clock() + self._lease_seconds * _LEAVE_LEASES
        lease.release()

    def found_nothing(self) -> None:
        """Wait, longer after each further time."""
        self._sleep(self._pause_seconds)
        self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)

    def found_work(self) -> None:
        self._pause_seconds = _PAUSE_SECONDS

    def renew(self) -> None:
        """Renew both leases."""
        if self.lease is not None:
            self.lease.renew()
        if self.draw is not None:
            self.draw.renew()

    @property
    def is_behind_another(self) -> bool | None:
        """Whether another drain leads for longer than a dead one's lease lasts; None for the one that leads."""
        if self._refused_since is None:
            return None
        return self._checked_at - self._refused_since > self._lease_seconds * PATIENCE_LEASES

    def let_go(self) -> None:
        self.free_draw()
        if self.lease is not None:
            self.lease.release()
