"""The merge of both sides and the table of what differs, against the same comparison in plain Python."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from regworkers_core.domain.entry import Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.replication.reconcile.classify import EntrySide, Kind, Pair, classify
from regworkers_core.replication.reconcile.comparison import PAGE, Comparison, PairProgress
from regworkers_core.replication.reconcile.segments import merge


def states(*, source: bool) -> st.SearchStrategy[dict[EntryKey, EntrySide]]:
    keys = st.builds(EntryKey, st.sampled_from(["ä", "b"]), st.sampled_from(["1", "10", "z", "😀"]))
    orders = st.builds(
        Order, st.sampled_from(["", "2026", "２"]), st.integers(0, 1), st.sampled_from(["", "u"])
    )

    def state(key: EntryKey) -> st.SearchStrategy[EntrySide]:
        content = st.sampled_from([b"x", b"y"])
        full = st.builds(EntrySide, st.just(key), orders, st.just(True), content)
        if source:
            return full | st.builds(
                EntrySide, st.just(key), orders, st.just(True), st.just(b""), st.just(True)
            )
        return full | st.builds(EntrySide, st.just(key), orders, st.just(False))

    return st.lists(keys, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({key: state(key) for key in chosen})
    )


def merged(source: dict[EntryKey, EntrySide], replica: dict[EntryKey, EntrySide]) -> list[Pair]:
    return list(merge(*(iter([side[key] for key in sorted(side)]) for side in (source, replica))))


@settings(max_examples=30)
@given(states(source=True), states(source=False), st.booleans())
def test_the_merge_finds_what_plain_python_finds(
    source: dict[EntryKey, EntrySide], replica: dict[EntryKey, EntrySide], unordered: bool
) -> None:
    expected = {
        key: Pair(source.get(key), replica.get(key))
        for key in source.keys() | replica.keys()
        if classify(source.get(key), replica.get(key)) is not None
    }
    with Comparison(16) as comparison:
        if unordered:
            comparison.expect(list(source.values()))
            comparison.meet(list(replica.values()))
        else:
            comparison.add(merged(source, replica))
        found = [difference for page in comparison.pages(PairProgress.FOUND) for difference in page]
        assert {difference.key: difference.pair for difference in found} == expected
        if unordered:
            return
        comparison.put(
            [replace(each, kind=classify(*each.pair), step=PairProgress.SETTLED) for each in found]
        )
        totals = comparison.totals()
        assert totals.source == len(source)
        assert totals.replica == sum(state.live for state in replica.values())
        assert totals.tombstones == len(replica) - totals.replica
        assert totals.source + totals.only_in_replica == totals.matched + sum(comparison.counts().values())


def test_more_differences_than_a_page_are_each_met_once_while_they_are_put_back() -> None:
    number = 2 * PAGE + 1
    with Comparison(16) as comparison:
        comparison.add([Pair(EntrySide(EntryKey("c", f"{n:05}"), Order("1")), None) for n in range(number)])
        met = 0
        for page in comparison.pages(PairProgress.FOUND):
            comparison.put([replace(each, step=PairProgress.OPEN, kind=Kind.MISSING) for each in page])
            met += len(page)
        assert met == number == comparison.count(PairProgress.OPEN)
        assert comparison.samples(Kind.MISSING, 2) == ("c:00000", "c:00001")


def test_an_entry_that_vanished_from_both_sides_is_counted_no_more() -> None:
    with Comparison(16) as comparison:
        comparison.add([Pair(None, EntrySide(EntryKey("c", "1"), Order("1")))])
        (page,) = list(comparison.pages(PairProgress.FOUND))
        comparison.put([replace(page[0], pair=Pair(None, None), step=PairProgress.SETTLED, kind=None)])
        assert set(comparison.totals()) == {0} and not any(comparison.counts().values())
