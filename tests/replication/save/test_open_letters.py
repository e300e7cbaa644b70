"""Closing dead letters costs a call only where there are letters."""

from __future__ import annotations

from collections.abc import Mapping

from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.order import Order
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.replication.save.open_letters import OpenLetters

GOOD, BAD = EntryKey("c", "good"), EntryKey("c", "bad")
SAVED = {GOOD: Order(version=1), BAD: Order(version=2)}


class Letters:
    """A log of letters that notes what it is asked."""

    def __init__(self, *known: EntryKey) -> None:
        self.known: set[EntryKey] | None = set(known)
        self.looks = 0
        self.resolved: list[Mapping[EntryKey, Order]] = []
        self.away = False

    def open_entries(self, queue: str, limit: int) -> set[EntryKey] | None:
        self.looks += 1
        if self.away:
            raise TransientFailure("mongo", "away")
        return None if self.known is None else set(self.known)

    def resolve(self, queue: str, saved: Mapping[EntryKey, Order], *, at: str) -> int:
        self.resolved.append(dict(saved))
        return len(saved)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_without_letters_a_look_every_half_minute_is_all_it_costs() -> None:
    log, clock = Letters(), Clock()
    letters = OpenLetters(log, "q", clock=clock)
    for _ in range(100):
        assert letters.close(SAVED) == 0
    assert (log.looks, log.resolved) == (1, [])
    clock.now += 31
    letters.close(SAVED)
    assert log.looks == 2


def test_only_the_entries_with_a_letter_are_asked_for() -> None:
    log = Letters(BAD)
    assert OpenLetters(log, "q", clock=Clock()).close(SAVED) == 1
    assert log.resolved == [{BAD: SAVED[BAD]}]


def test_an_entry_that_failed_in_this_drain_needs_no_new_look() -> None:
    log = Letters()
    letters = OpenLetters(log, "q", clock=Clock())
    letters.close({})
    letters.expect([BAD])
    assert letters.close(SAVED) == 1
    assert (log.looks, log.resolved) == (1, [{BAD: SAVED[BAD]}])


def test_with_too_many_letters_to_know_every_entry_is_asked_for() -> None:
    log = Letters()
    log.known = None
    assert OpenLetters(log, "q", clock=Clock()).close(SAVED) == 2


def test_a_database_that_is_away_costs_the_closing_and_not_the_save() -> None:
    log = Letters(BAD)
    log.away = True
    letters = OpenLetters(log, "q", clock=Clock())
    assert letters.close(SAVED) == 0
    log.away = False
    assert letters.close(SAVED) == 1
