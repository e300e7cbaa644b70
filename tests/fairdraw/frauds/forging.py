"""What the tests of frauds share: an operator who makes all files fit as far as possible, and rules without a check."""

from __future__ import annotations

import inspect
import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fairdraw.large.allocate import LargeEngine
from fairdraw.large.receipts import Receipt
from fairdraw.log.trust import Trust
from fairdraw.maths.files import CUTOFFS, LEAVES, MANIFEST, RESULT, SUMMARY, canonical_bytes, file_hash
from fairdraw.maths.leaves import Leaf, parse_leaf
from fairdraw.maths.merkle import root_of
from fairdraw.proof.check import check_receipt
from fairdraw.proof.checker import State
from fairdraw.proof.verify import verify
from tests.fairdraw.maths.draws import compute_with_any_seed


def failed(receipt: Receipt, trust: Trust | None = None) -> list[str]:
    """The steps of the check of a receipt that fail."""
    checked = check_receipt(canonical_bytes(receipt), trust or Trust())
    return [each.name for each in checked.checks if each.state == State.FAILED]


def blamed(draw: Path, scratch: Path, *published: str) -> list[str]:
    """The files that a replay of the draw finds at fault."""
    done = verify(draw, engine=engine(scratch), published=published)
    return [finding.artefact for finding in done.findings]


def engine(scratch: Path) -> LargeEngine:
    return LargeEngine(scratch / "engine", threads=1, memory_mib=256)


def copied(draw: Path, folder: Path) -> Path:
    """A copy of a draw to be forged."""
    return shutil.copytree(draw, folder / "forged")


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes())  # type: ignore[no-any-return]


def write(path: Path, document: dict[str, Any], **fields: object) -> None:
    path.write_bytes(canonical_bytes({**document, **fields}))


def edit(path: Path, **fields: object) -> None:
    write(path, read(path), **fields)


def write_leaves(phase: Path, leaves: Sequence[Leaf]) -> None:
    (phase / LEAVES).write_bytes("".join(f"{leaf.line}\n" for leaf in leaves).encode())


def redraw(phase: Path, scratch: Path) -> None:
    """The results of a first phase by the rules, with the seed that is there."""
    compute_with_any_seed(phase, engine(scratch))


def restate(phase: Path) -> None:
    """A summary with the hashes of the files that are there."""
    names = {"manifestHash": MANIFEST, "resultHash": RESULT, "cutoffsHash": CUTOFFS}
    hashes = {key: file_hash(phase / name) for key, name in names.items()}
    edit(phase / SUMMARY, **hashes, resultRoot=root_of(phase / RESULT).root)


def reposition(phase: Path, ref: str, market: str, outcome: str) -> None:
    """Another outcome of one entry in result.txt."""
    lines = (phase / RESULT).read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(f"{ref}|"))
    lines[at] = f"{ref}|{market}|{lines[at].split('|')[2]}|{outcome}"
    (phase / RESULT).write_text("".join(f"{line}\n" for line in lines))


def bend_cutoffs(phase: Path) -> str:
    """Cut-offs of a first phase that no entry met, for one of its winners, whose ref is returned: a friend gets the
    seat.
    """
    lines = (phase / RESULT).read_text().splitlines()
    units = {leaf.ref: leaf.unit for leaf in map(parse_leaf, (phase / LEAVES).read_text().splitlines())}
    robbed = next(
        ref
        for ref, *_, outcome in (line.split("|") for line in lines)
        if (units[ref], outcome) == (ref, "WINNER")
    )
    cutoffs = read(phase / CUTOFFS)
    for groups in cutoffs["markets"].values():
        groups["open"] = {"entryKey": "0" * 64, "key": "0" * 64, "rank": 0}
        for reserve in groups["reserves"]:
            reserve["cutoff"] = {"entryKey": "0" * 63 + "1", "key": "0" * 63 + "1", "rank": 1}
    write(phase / CUTOFFS, cutoffs)
    reposition(phase, robbed, "", "WAITLIST")
    restate(phase)
    return robbed


def without(
    patch: pytest.MonkeyPatch, where: Callable[..., Any], check: str, replaced_by: str = "False"
) -> None:
    """Take one check out of a function or method: the condition `check` in its source, which occurs once."""
    source = textwrap.dedent(inspect.getsource(where))
    assert source.count(check) == 1, f"{where.__qualname__} has no single {check}"
    module = sys.modules[where.__module__]
    made: dict[str, Any] = {}
    exec(source.replace(check, replaced_by), module.__dict__, made)
    owner: Any = module
    *classes, name = where.__qualname__.split(".")
    for each in classes:
        owner = getattr(owner, each)
    patch.setattr(owner, name, made[name])
