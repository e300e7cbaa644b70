"""A lease that is held while a piece of work lasts, whatever its table answers meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest
from structlog.testing import capture_logs

from fairdraw import scheduling
from regworkers_core.engine.leases import LeaseHolder, LeaseKey, LeaseRow, held_lease
from tests.support.in_memory import MemoryLeaseTable
from tests.support.waiting import Clock


class Odd(MemoryLeaseTable):
    """Fails in ways that no classification knows: at the first renewals, and at every release."""

    def __init__(self, *, renewals: int = 0, releases: bool = False) -> None:
        super().__init__()
        self.renewals, self.releases = renewals, releases
        self.renewed = threading.Event()

    def renew(
        self,
        key: LeaseKey,
        owner: str,
        token: int,
        state: Mapping[str, str] | None = None,
        position: str = "",
    ) -> bool:
        if self.renewals:
            self.renewals -= 1
            raise KeyError("owner")
        self.renewed.set()
        return super().renew(key, owner, token, state, position)

    def release(self, key: LeaseKey, owner: str, token: int) -> bool:
        if self.releases:
            raise KeyError("owner")
        return super().release(key, owner, token)


def test_a_lease_goes_on_being_renewed_after_an_error_that_no_one_foresaw() -> None:
    table = Odd(renewals=2)
    with held_lease(table, "draw-summer", "run", lease_seconds=0.03):
        assert table.renewed.wait(30)


def test_a_lease_that_cannot_be_released_does_not_cover_up_what_the_work_failed_with() -> None:
    with (
        capture_logs() as logs,
        pytest.raises(RuntimeError, match="the work"),
        held_lease(Odd(releases=True), "draw-summer", "run", lease_seconds=10.0),
    ):
        raise RuntimeError("the work")
    (line,) = [each for each in logs if each["event"] == "lease not released"]
    assert line["lease"] == "draw-summer" and "KeyError at " in line["error"]


class Slow(MemoryLeaseTable):
    """Each read of a row takes this many seconds."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self._clock, self._seconds = clock, seconds

    def get(self, key: LeaseKey) -> LeaseRow | None:
        self._clock.sleep(self._seconds)
        return super().get(key)


@pytest.mark.parametrize("seconds", [0.0, 4.0, 9.0, 15.0])
def test_the_lease_of_a_dead_holder_is_taken_however_long_its_check_takes(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    clock = Clock()
    table = Slow(clock, seconds)
    assert LeaseHolder(table, "dead", lease_seconds=10.0).acquire("draw-summer") is not None
    monkeypatch.setattr(scheduling, "sleep", clock.sleep)
    monkeypatch.setattr(scheduling, "monotonic", clock)
    monkeypatch.setattr(LeaseHolder.__init__, "__kwdefaults__", {"clock": clock})
    with held_lease(table, "draw-summer", "run", lease_seconds=10.0) as lease:
        assert lease.token == 2
