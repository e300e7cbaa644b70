"""Trees over nodes in memory, and their tiles by definition."""

from __future__ import annotations

from collections.abc import Sequence

from fairdraw.log.tree import WIDTH, StoredTree, root_over


class TreeOf(StoredTree):
    """The tree over these hashes of leaves."""

    def __init__(self, nodes: Sequence[bytes]) -> None:
        super().__init__(len(nodes), lambda _path: None)
        self._nodes = nodes

    def tile(self, level: int, number: int) -> list[bytes]:
        span = WIDTH**level
        last = min((number + 1) * WIDTH, self.size // span)
        starts = range(number * WIDTH * span, last * span, span)
        return [root_over(self._nodes[start : start + span]) for start in starts]
