"""What several campaigns of one log have in common, and should not: an event at the same time, a list, an entry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from heapq import merge
from itertools import combinations, groupby
from typing import BinaryIO, NamedTuple

from fairdraw.errors import UsageError
from fairdraw.log.account import DrawAccount
from fairdraw.log.place import Place
from fairdraw.log.record import open_times
from fairdraw.maths.files import LEAVES
from fairdraw.maths.merkle import TreeHash, leaf_hash


class Shared(NamedTuple):
    """A finding about several campaigns, or what could not be compared."""

    campaigns: frozenset[str]
    text: str
    # Whether something is wrong, and not only unknown.
    is_finding: bool = True


def shared(accounts: Sequence[DrawAccount], place: Place) -> Iterator[Shared]:
    """Compare all campaigns of a log, whose findings were made."""
    yield from _events(accounts)
    by_root: dict[str, list[DrawAccount]] = {}
    for each in accounts:
        if each.manifest is not None and each.manifest.count:
            by_root.setdefault(each.manifest.root, []).append(each)
    for same in by_root.values():
        if len(same) > 1:
            yield _finding(
                same, "one list: drawn more than once, so the operator could choose among the results"
            )
    if len(by_root) > 1:
        yield from _Refs(by_root, place).findings()


def _finding(campaigns: Collection[DrawAccount], text: str) -> Shared:
    names = sorted(each.id for each in campaigns)
    return Shared(frozenset(names), f"{' and '.join(names)}: {text}")


def _events(accounts: Sequence[DrawAccount]) -> Iterator[Shared]:
    """Campaigns of one event that were open at the same time, and those of which no one knows."""
    by_event: dict[str | None, list[DrawAccount]] = {}
    for each in accounts:
        if each.record:
            by_event.setdefault(each.record[0].opened.event_id, []).append(each)
    opened = [each.id for campaigns in by_event.values() for each in campaigns]
    unknown = sorted(each.id for each in by_event.pop(None, ()))
    if unknown and len(opened) > 1:
        text = (
            f"{len(unknown)} of {len(opened)} opened campaigns name no event ({', '.join(unknown)}): whether one event"
            " is drawn in several of them is unknown"
        )
        yield Shared(frozenset(opened), text, is_finding=False)
    for event, campaigns in by_event.items():
        found = {
            each
            for pair in combinations(campaigns, 2)
            if any(
                one.start < other.end and other.start < one.end
                for one in open_times(pair[0].record)
                for other in open_times(pair[1].record)
            )
            for each in pair
        }
        if found:
            yield _finding(found, f"open at the same time for one event, {event}")


class _Refs:
    """The refs of several lists, which are sorted by ref, read side by side."""

    def __init__(self, by_root: dict[str, list[DrawAccount]], place: Place) -> None:
        self._by_root, self._place = by_root, place
        self._problems: list[Shared] = []

    def findings(self) -> Iterator[Shared]:
        lists = [self._refs(root, accounts[0]) for root, accounts in self._by_root.items()]
        common: Counter[tuple[str, ...]] = Counter()
        for _, refs in groupby(merge(*lists), key=lambda pair: pair[0]):
            roots = tuple(sorted({root for _, root in refs}))
            if len(roots) > 1:
                common[roots] += 1
        for roots, count in common.items():
            entries = "1 entry is" if count == 1 else f"{count} entries are"
            campaigns = [each for root in roots for each in self._by_root[root]]
            yield _finding(campaigns, f"{entries} in the lists of all of these")
        yield from self._problems

    def _refs(self, root: str, account: DrawAccount) -> Iterator[tuple[bytes, str]]:
        path = f"draws/{account.id}/phase-1/{LEAVES}"
        try:
            file = self._place.open(path)
            if file is None:
                self._unread(account, "is not published")
                return
            with file:
                yield from ((ref, root) for ref in self._read(file, root, account))
        except UsageError as error:
            self._unread(account, f"cannot be read: {error}")

    def _read(self, file: BinaryIO, root: str, account: DrawAccount) -> Iterator[bytes]:
        tree, before, in_order = TreeHash(), b"", True
        for line in file:
            tree.add(leaf_hash(line.removesuffix(b"\n")))
            ref = line.partition(b"|")[0]
            in_order, before = in_order and before < ref, ref
            yield ref
        if not in_order:
            text = f"{LEAVES} is not sorted by ref, so that its draw does not verify, nor show which entries it shares"
            self._problems.append(_finding([account], text))
        if tree.root().hex() != root:
            self._problems.append(_finding([account], f"{LEAVES} is not the list of its manifest"))

    def _unread(self, account: DrawAccount, why: str) -> None:
        text = f"{LEAVES} {why}: whether it has entries of other draws is unknown"
        self._problems.append(_finding([account], text)._replace(is_finding=False))
