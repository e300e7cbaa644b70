from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from regworkers_core.replication.enqueue.held_shards import ContiguousTracker
from regworkers_core.replication.enqueue.shard_rows import position_of


def checkpoint_violations(
    tracker: ContiguousTracker, read: Sequence[str], acknowledged: Sequence[str]
) -> list[str]:
    """Feed a tracker and tell each moment at which its checkpoint lay beyond a record that was still open,
    or went backwards.
    """
    found = []
    for sequence in read:
        tracker.read(sequence)
    done: set[int] = set()
    before = -1
    for sequence in acknowledged:
        tracker.acknowledge(sequence)
        done.add(int(sequence))
        reached = -1 if tracker.checkpoint is None else int(tracker.checkpoint)
        skipped = [number for number in read if int(number) <= reached and int(number) not in done]
        if skipped:
            found.append(f"at {reached}: {skipped} are open")
        if reached < before:
            found.append(f"from {before} back to {reached}")
        before = reached
    return found


@st.composite
def reads_and_acknowledgements(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    numbers = sorted(draw(st.sets(st.integers(0, 10**21), max_size=30)))
    read = [str(number) for number in numbers]
    order = draw(st.permutations(read))
    return read, order[: draw(st.integers(0, len(order)))]


@given(reads_and_acknowledgements())
def test_no_record_before_the_checkpoint_is_open_in_whatever_order_they_are_acknowledged(
    case: tuple[list[str], list[str]],
) -> None:
    assert checkpoint_violations(ContiguousTracker(), *case) == []


@given(reads_and_acknowledgements())
def test_once_all_is_acknowledged_the_checkpoint_is_the_last_and_nothing_is_remembered(
    case: tuple[list[str], list[str]],
) -> None:
    read, some = case
    tracker = ContiguousTracker()
    for sequence in read:
        tracker.read(sequence)
    for sequence in [*some, *read]:
        tracker.acknowledge(sequence)
    assert tracker.checkpoint == (read[-1] if read else None)
    assert len(tracker) == 0


def test_unknown_and_repeated_acknowledgements_are_ignored() -> None:
    tracker = ContiguousTracker("5")
    tracker.read("6")
    for sequence in ("9", "6", "6"):
        tracker.acknowledge(sequence)
    assert tracker.checkpoint == "6"


def test_a_record_that_is_being_worked_on_is_not_read_twice() -> None:
    tracker = ContiguousTracker()
    assert tracker.read("1")
    assert not tracker.read("1")


def test_the_checkpoint_never_goes_backwards_should_a_service_restart_its_numbers() -> None:
    tracker = ContiguousTracker("50")
    tracker.read("3")
    tracker.acknowledge("3")
    assert tracker.checkpoint == "50"


@given(st.integers(0, 10**40 - 1), st.integers(0, 10**40 - 1))
def test_positions_compare_as_text_like_the_sequence_numbers_as_integers(one: int, other: int) -> None:
    assert (position_of(str(one)) < position_of(str(other))) is (one < other)
    assert position_of(None) < position_of(str(one))
