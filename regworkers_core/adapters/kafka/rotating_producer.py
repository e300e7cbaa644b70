"""A producer whose certificate is renewed while it runs: the next one is built beside it, the old one flushed, then
they are swapped.

    look every checkSeconds (a thread of its own) -> other material that the brokers take -> new producer
    hold new sends -> sends under way end, old producer flushed -> swap -> sends go on -> old producer closed

New sends are held so that what the old producer was given is acknowledged before the new one gets anything: the order
of an entry's events stays. Should the old one not get rid of it within the flush time, they are swapped all the same;
its sends keep it until they have their reports, and the last one closes it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import structlog

from regworkers_core.adapters.kafka.credentials import Credentials
from regworkers_core.adapters.kafka.producer import Record, RecordProducer
from regworkers_core.domain.reasons import Failure, TransientFailure, UsageError

log = structlog.get_logger(__name__)


class _Held:
    """A producer and how many sends it has under way."""

    def __init__(self, producer: RecordProducer, fingerprint: str) -> None:
        self.producer, self.fingerprint = producer, fingerprint
        self.sends = 0
        self.retired = False


class RotatingProducer:
    """`RecordProducer`. `make` builds one from librdkafka's settings, at the first send and for every renewal."""

    def __init__(
        self,
        credentials: Credentials,
        make: Callable[[Mapping[str, str]], RecordProducer],
        *,
        flush_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._credentials, self._make = credentials, make
        self._flush_seconds, self._monotonic = flush_seconds, monotonic
        self._state = threading.Condition()
        self._held: _Held | None = None
        self._swapping = False
        # Set when the thread that looks shall end; None while there is none.
        self._ended: threading.Event | None = None

    def send(self, records: Sequence[Record]) -> list[Failure | None]:
        """See `RecordProducer`."""
        with self._borrowed() as producer:
            return producer.send(records)

    def flush(self, seconds: float) -> int:
        """See `RecordProducer`."""
        held = self._held
        return 0 if held is None else held.producer.flush(seconds)

    def close(self) -> None:
        """See `RecordProducer`."""
        with self._state:
            held, self._held = self._held, None
            if self._ended is not None:
                self._ended.set()
                self._ended = None
        if held is not None:
            held.producer.close()

    def look(self) -> bool:
        """Take up other material if there is any that the brokers take; says whether it was."""
        accepted = self._credentials.look()
        with self._state:
            old = self._held
        if old is None or accepted.fingerprint == old.fingerprint:
            return False
        return self._swap(old, _Held(self._make(accepted.options), accepted.fingerprint))

    def _swap(self, old: _Held, new: _Held) -> bool:
        with self._state:
            if self._held is not old:
                # Closed meanwhile, and perhaps in use again with what is accepted now.
                return False
            self._swapping = True
            self._state.wait_for(lambda: old.sends == 0, self._flush_seconds)
        try:
            old.producer.flush(self._flush_seconds)
        finally:
            with self._state:
                swapped = self._held is old
                if swapped:
                    self._held = new
                old.retired = True
                idle = old.sends == 0
                self._swapping = False
                self._state.notify_all()
        if idle:
            old.producer.close()
        return swapped

    @contextmanager
    def _borrowed(self) -> Iterator[RecordProducer]:
        with self._state:
            self._state.wait_for(lambda: not self._swapping)
            held = self._held
            if held is None:
                accepted = self._credentials.accepted()
                held = self._held = _Held(self._make(accepted.options), accepted.fingerprint)
                self._watch()
            held.sends += 1
        try:
            yield held.producer
        finally:
            with self._state:
                held.sends -= 1
                last = held.retired and held.sends == 0
                self._state.notify_all()
            if last:
                held.producer.close()

    def _watch(self) -> None:
        if self._credentials.may_change and self._ended is None:
            self._ended = threading.Event()
            # A daemon: it holds nothing that a process which ends would have to give back.
            threading.Thread(
                target=self._look_on, args=(self._ended,), name="certificates", daemon=True
            ).start()

    def _look_on(self, ended: threading.Event) -> None:
        while not ended.wait(self._credentials.check_seconds):
            try:
                self.look()
            except (UsageError, TransientFailure) as error:
                log.warning("certificate not renewed", error=str(error))
            except Exception as error:
                # The thread survives unexpected errors; the current producer stays in use.
                log.warning("certificate not renewed", exc_info=error)
