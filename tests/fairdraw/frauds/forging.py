"""What the tests of frauds share: an operator who makes all files fit as far as possible, and rules without a check."""

from __future__ import annotations

import atexit
import base64
import inspect
import json
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fairdraw.errors import DrawError
from fairdraw.large.allocate import LargeEngine
from fairdraw.large.receipts import Receipt
from fairdraw.log.trust import Trust
from fairdraw.maths.files import CUTOFFS, LEAVES, MANIFEST, RESULT, SUMMARY, canonical_bytes, file_hash
from fairdraw.maths.leaves import Leaf, parse_leaf
from fairdraw.maths.merkle import root_of
from fairdraw.maths.plain import PlainEngine
from fairdraw.proof.check import HOLDS, check_receipt
from fairdraw.proof.checker import State
from fairdraw.proof.verify import verify
from tests.fairdraw.maths.draws import compute_with_any_seed
from tests.fairdraw.verifier.folders import page_judges, perl_judges
from tests.fairdraw.verifier.node import BUNDLE, READER, ROOT, node


class Asked(NamedTuple):
    """What a program said of something that a test forged."""

    program: str
    # The receipt or the folder.
    what: Hashable
    # Steps that fail, files at fault, or findings; a receipt that does not hold has at least its verdict.
    said: tuple[str, ...]


# What the test that runs has asked.
ASKED: list[Asked] = []


class Programs:
    """Those that are no Python: each as it is, or with a check less."""

    page: Path = ROOT
    reader: Path = READER


def page_says(data: bytes, trust: str | None, opened: str | None = None) -> Any:
    encoded = base64.b64encode(data).decode()
    asked = {"data": encoded, "trust": trust, "opened": opened, "curves": BUNDLE.exists()}
    return node(Programs.page).ask("receipt", **asked)


def failed(receipt: Receipt, trust: str | None = None, opened: str | None = None) -> list[str]:
    """The steps of the check of a receipt that fail, in Python and on the page; `trust` is the text of a trust file,
    `opened` the hash of a text of the campaign's record.
    """
    data = canonical_bytes(receipt)
    checked = check_receipt(data, Trust() if trust is None else Trust.parse(trust.encode()), opened)
    found = [each.name for each in checked.checks if each.state == State.FAILED]
    states = {name: state for name, state, _ in page_says(data, trust, opened)["steps"]}
    page = [name for name, state in states.items() if state == "failed"]
    # Without the curves the page checks no signature.
    assert page == [name for name in found if BUNDLE.exists() or states[name] != "unchecked"]
    for program, steps in (("Python", found), ("page", page)):
        ASKED.append(Asked(program, (data, trust, opened), tuple(steps)))
    return found


def limits(receipt: Receipt) -> str:
    """What a receipt that holds but for its keys leaves to trust."""
    data = canonical_bytes(receipt)
    checked = check_receipt(data)
    page = page_says(data, None)
    assert not checked.is_in(State.FAILED) and page["limits"] == [*checked.limits]
    return "\n".join(checked.limits)


def verdict(receipt: Receipt, trust: str | None) -> str:
    """The verdict of Python, which is that of a page that has the curves."""
    data = canonical_bytes(receipt)
    found = check_receipt(data, Trust() if trust is None else Trust.parse(trust.encode())).verdict
    ASKED.append(Asked("Python", (data, trust, "verdict"), () if found == HOLDS else (found,)))
    if BUNDLE.exists():
        page = page_says(data, trust)["verdict"]
        assert page == found
        ASKED.append(Asked("page", (data, trust, "verdict"), () if page == HOLDS else (page,)))
    return found


def refused(trust: str) -> str:
    """Why Python and the page refuse a trust file; empty if they take it."""
    page = node(Programs.page).ask("trust", text=trust).get("refused", "")
    found = ""
    try:
        Trust.parse(trust.encode())
    except DrawError as error:
        found = error.message
    assert page == found
    ASKED.extend(Asked(program, trust, tuple(filter(None, [found]))) for program in ("Python", "page"))
    return found


def blamed(draw: Path, scratch: Path, *, by_signature: bool = False) -> list[str]:
    """The files that a replay of the draw finds at fault. Both engines, the page and the reader in Perl judge it alike;
    `by_signature`: the signature of the beacon is at fault, which Perl never checks, nor a page without the curves.
    """
    done = verify(draw, engine=engine(scratch))
    found = [finding.artefact for finding in done.findings]
    said = {"Python": done.verdict, "plain": verify(draw, engine=PlainEngine(scratch / "plain")).verdict}
    if BUNDLE.exists() or not by_signature:
        said["page"] = page_judges(draw, {}, page=node(Programs.page), curves=BUNDLE.exists()).verdict
    if not by_signature:
        said["Perl"] = perl_judges(draw, script=Programs.reader).verdict
    assert len({*said.values()}) == 1, said
    ASKED.extend(Asked(program, draw, tuple(found)) for program in said if program != "plain")
    return found


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


def page_without(patch: pytest.MonkeyPatch, *checks: str, replaced_by: str = "false") -> None:
    """Take checks out of the page, as `without`: each occurs once in all of its modules."""
    root = Path(tempfile.mkdtemp(prefix="page-", dir=_scratch()))
    for each in ("fairdraw/verifier", "tests/fairdraw/verifier"):
        scripts = shutil.ignore_patterns("*.py", "__pycache__", "*.gz")
        shutil.copytree(Programs.page / each, root / each, ignore=scripts)
    for check in checks:
        modules = [
            path for path in (root / "fairdraw" / "verifier").glob("*.js") if check in path.read_text()
        ]
        assert len(modules) == 1, f"{check} is in {modules}"
        _plant(modules[0], check, replaced_by)
    patch.setattr(Programs, "page", root)


def perl_without(patch: pytest.MonkeyPatch, *checks: str) -> None:
    """Take checks out of the reader in Perl, as `without`: each is what the reader needs."""
    copy = Path(tempfile.mkdtemp(prefix="perl-", dir=_scratch())) / READER.name
    shutil.copyfile(Programs.reader, copy)
    for check in checks:
        _plant(copy, check, "1")
    patch.setattr(Programs, "reader", copy)


def _plant(path: Path, check: str, replaced_by: str) -> None:
    text = path.read_text()
    assert text.count(check) == 1, f"{path.name} has no single {check}"
    path.write_text(text.replace(check, replaced_by))


@cache
def _scratch() -> Path:
    """Gone when the tests end."""
    folder = tempfile.TemporaryDirectory(prefix="regworkers-frauds-")
    atexit.register(folder.cleanup)
    return Path(folder.name)
