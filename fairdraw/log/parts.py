"""The log as its operator published it with its keys, and what a receipt has from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from math import inf
from typing import Any, NamedTuple

from fairdraw.log.leaves import KEYS, Kind, LeafTimes, LogLeaf, LogState
from fairdraw.log.place import Read, in_log
from fairdraw.log.trust import LOG_KEYS, LogKeys
from fairdraw.maths.files import Fields, parse_canonical
from fairdraw.maths.merkle import path_to


class Published(NamedTuple):
    """A log, and the keys that it is verified by."""

    state: LogState
    keys: LogKeys


def published(read: Read, trusted: LogKeys | None = None) -> Published | None:
    """The log and its keys: the `trusted` ones, and for what these do not name those that the operator published. None
    if there is no log.

    Raises DrawError with the file that is wrong.
    """
    below = in_log(read)
    data, keys = below(KEYS), trusted or LogKeys()
    if data is not None:
        own = LogKeys.read(Fields(KEYS, "", parse_canonical(data, KEYS), LOG_KEYS))
        keys = LogKeys(keys.log or own.log, keys.quorum if keys.quorum.members else own.quorum)
    if not keys.log:
        return None
    return Published(LogState.verified(below, keys.log), keys)


def log_parts(read: Read) -> Callable[[str, int], dict[str, Any] | None]:
    """The key `log` of receipts, by campaign and number of phases; the log is read once. None for a draw without a
    manifest in the log, and where there is no log. Raises DrawError.
    """
    found = published(read)
    if found is None:
        return lambda _campaign_id, _phases: None
    state, keys = found
    times = LeafTimes(state, keys, in_log(read))
    document = {
        "log": [*map(str, keys.log)],
        "need": keys.quorum.need,
        "witnesses": [*map(str, keys.quorum.witnesses)],
    }

    @cache
    def part(campaign_id: str, phases: int) -> dict[str, Any] | None:
        found = state.of_campaign(campaign_id)
        manifests = [index for index, leaf in found if (leaf.kind, leaf.phase) == (Kind.MANIFEST, 1)]
        if not manifests:
            return None
        sizes = [index for index, leaf in found if leaf.kind is Kind.REGISTRATIONS and index < manifests[-1]]
        leaves = [
            (index, leaf)
            for index, leaf in found
            # The manifest has the last size before it; the others are no part of a draw.
            if (index in sizes[-1:] if leaf.kind is Kind.REGISTRATIONS else _is_of(leaf, phases))
        ]
        # The last manifest took the place of those before.
        timed = [index for index, leaf in leaves if leaf.kind in (Kind.OPENED, Kind.AMENDED)] + manifests[-1:]
        return {
            "checkpoint": str(state.note),
            "entries": [
                {"index": index, "leaf": state.entries[index].decode(), "proof": state.proof(index)}
                for index, _ in leaves
            ],
            "keys": document,
            "kept": [each for index in sorted(timed) for each in _kept(times, state, index)],
        }

    return part


def _is_of(leaf: LogLeaf, phases: int) -> bool:
    """Whether the receipts of a draw with this number of phases have the leaf."""
    return leaf.phase <= phases or leaf.kind in (Kind.AMENDED, Kind.ANNULLED)


def _kept(times: LeafTimes, state: LogState, index: int) -> Iterator[dict[str, Any]]:
    """The checkpoint that gives the time of a leaf, and the leaf's path to its root; nothing if it has none."""
    if (kept := times.kept(index)) is not None and kept.at > -inf:
        proof = [node.hex() for node in path_to(index, state.nodes[: kept.size])]
        yield {"checkpoint": str(kept.note), "index": index, "proof": proof}
