"""Closing dead letters costs a call only where there are dead_letters."""

from __future__ import annotations

from collections.abc import Mapping

from regworkers_core.domain.entry import Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.replication.saver import OpenDeadLetters
from tests.support.waiting import Clock

GOOD, BAD = EntryKey("c", "good"), EntryKey("c", "bad")
SAVED = {GOOD: Order(version=1), BAD: Order(version=2)}


class DeadLetterRecords:
    """A log of dead_letters that notes what it is asked."""

    def __init__(self, *known: EntryKey) -> None:
        self.known: set[EntryKey] | None = set(known)
        self.looks = 0
        self.resolved: list[Mapping[EntryKey, Order]] = []
        self.unavailable = False

    def open_entries(self, queue: str, limit: int) -> set[EntryKey] | None:
        self.looks += 1
        if self.unavailable:
            raise TransientFailure("mongo", "unavailable")
        return None if self.known is None else set(self.known)

    def resolve(self, queue: str, saved: Mapping[EntryKey, Order], *, at: str) -> int:
        self.resolved.append(dict(saved))
        return len(saved)


def test_without_dead_letters_a_read_every_half_minute_is_all_it_costs() -> None:
    log, clock = DeadLetterRecords(), Clock()
    dead_letters = OpenDeadLetters(log, "q", clock=clock)
    for _ in range(100):
        assert dead_letters.close(SAVED) == 0
    assert (log.looks, log.resolved) == (1, [])
    clock.now += 31
    dead_letters.close(SAVED)
    assert log.looks == 2


def test_only_the_entries_with_a_dead_letter_are_asked_for() -> None:
    log = DeadLetterRecords(BAD)
    assert OpenDeadLetters(log, "q", clock=Clock()).close(SAVED) == 1
    assert log.resolved == [{BAD: SAVED[BAD]}]


def test_an_entry_that_failed_in_this_drain_needs_no_new_look() -> None:
    log = DeadLetterRecords()
    dead_letters = OpenDeadLetters(log, "q", clock=Clock())
    dead_letters.close({})
    dead_letters.expect([BAD])
    assert dead_letters.close(SAVED) == 1
    assert (log.looks, log.resolved) == (1, [{BAD: SAVED[BAD]}])


def test_with_too_many_dead_letters_to_know_every_entry_is_asked_for() -> None:
    log = DeadLetterRecords()
    log.known = None
    assert OpenDeadLetters(log, "q", clock=Clock()).close(SAVED) == 2


def test_a_database_that_is_unavailable_costs_the_closing_and_not_the_save() -> None:
    log = DeadLetterRecords(BAD)
    log.unavailable = True
    dead_letters = OpenDeadLetters(log, "q", clock=Clock())
    assert dead_letters.close(SAVED) == 0
    log.unavailable = False
    assert dead_letters.close(SAVED) == 1
