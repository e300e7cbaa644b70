"""Whatever the order of acknowledgements, crashes, pauses and takeovers: every record is worked off."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import example, given, settings
from hypothesis import strategies as st

from regworkers_core.adapters.aws.streams import StreamRecord
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.replication.enqueue.stream_source import StreamSource
from regworkers_core.settings import EnqueueSettings
from tests.replication.enqueue.world import LEASE_SECONDS, World

LIMITS = EnqueueSettings(batch_records=5, max_unacknowledged=20, lease_seconds=LEASE_SECONDS)
# The usual ones more than once, so that plays get deep enough for the rare ones to matter.
STEPS = (
    *("write", "receive", "receive", "receive", "finish", "finish", "fail", "time", "time"),
    *("split", "crash", "close", "pause", "expire", "disconnect", "unlisted"),
)
Step = tuple[str, int]


class Play:
    """Two seats at one stream. A consumer that crashed or closed is followed by a new one in its seat."""

    def __init__(self) -> None:
        self.world = World("s0", "s1")
        self.written = {number for shard in ("s0", "s1") for number in self.world.service.write(shard, 12)}
        self.done: set[str] = set()
        self._started = 0
        self.seats = [self._start(), self._start()]
        self.in_hand: list[list[list[StreamRecord]]] = [[], []]

    def _start(self) -> StreamSource:
        self._started += 1
        return self.world.consumer(f"consumer-{self._started}", LIMITS)

    def _open_shards(self) -> list[str]:
        return [name for name, shard in self.world.service.shards.items() if shard.closed_at is None]

    def step(self, kind: str, number: int) -> None:
        seat, number = number % 2, number // 2
        if kind == "write":
            shards = self._open_shards()
            self.written.update(self.world.service.write(shards[number % len(shards)], 1 + number % 4))
        elif kind == "split":
            shards = self._open_shards()
            name = f"s{len(self.world.service.shards)}"
            self.world.service.split(shards[number % len(shards)], name, name + "b")
        elif kind == "receive":
            self._receive(seat)
        elif kind in ("finish", "fail") and self.in_hand[seat]:
            batch = self.in_hand[seat].pop(number % len(self.in_hand[seat]))
            # Some of it, as after a partial failure; the rest is given back.
            some = batch if kind == "finish" else batch[number % len(batch) :]
            self.done.update(record.sequence for record in some)
            self.seats[seat].acknowledge(some)
            self.seats[seat].give_back([(record, 1.0) for record in batch if record not in some])
        elif kind == "crash":
            self.seats[seat], self.in_hand[seat] = self._start(), []
        elif kind == "close":
            self.seats[seat].close()
            self.seats[seat], self.in_hand[seat] = self._start(), []
        elif kind == "pause":
            # The other one lives on, so that it can take over; what the paused one has in hand stays.
            for _ in range(int(LEASE_SECONDS) + 2):
                self._live(1 - seat)
        elif kind == "time":
            for each in (0, 1):
                self._live(each)
        elif kind == "expire":
            self.world.service.expire_iterators()
        elif kind == "disconnect":
            self.world.service.disconnect("get_records")
        elif kind == "unlisted":
            self.world.service.disconnect("describe_stream", 1 + number)

    def _live(self, seat: int) -> None:
        self.world.clock.now += 1.0
        self.seats[seat].heartbeat()
        self._receive(seat)

    def _receive(self, seat: int) -> None:
        # Before the first listing a failing one is all that there is.
        with suppress(TransientFailure):
            if batch := self.seats[seat].receive():
                self.in_hand[seat].append(batch)

    def lost(self) -> set[str]:
        """Both seats crash; a fresh consumer works off what is left. What no one ever worked off is lost."""
        last = self._start()
        self.world.service.recover()
        for _ in range(120):
            self.world.clock.now += 0.5
            batch = last.receive()
            self.done.update(record.sequence for record in batch)
            last.acknowledge(batch)
            last.heartbeat()
        return self.written - self.done


def losses(steps: list[Step]) -> set[str]:
    play = Play()
    for kind, number in steps:
        play.step(kind, number)
    return play.lost()


# Three batches in hand of two shards that take turns; the last is finished first, and then a clean end.
GAP: list[Step] = [*[("receive", 0)] * 3, ("finish", 4), ("close", 0)]


@settings(max_examples=60)
@example(GAP)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 15)), min_size=5, max_size=40))
def test_no_record_is_ever_lost(steps: list[Step]) -> None:
    assert losses(steps) == set()
