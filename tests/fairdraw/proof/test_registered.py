"""The registration in a receipt: the entry was in the list before the draw, and what was noted about it there."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fairdraw.large.allocate import compute
from fairdraw.large.engine import Engine
from fairdraw.large.receipts import ReceiptSource, build_receipt
from fairdraw.large.tiles import write_proofs
from fairdraw.log.leaves import Kind, LogLeaf
from fairdraw.maths.plain import PlainEngine
from fairdraw.maths.registration import NoticeKind, OpenedRegistration
from fairdraw.proof.receipt_view import checked_text, values
from fairdraw.proof.registered import NO_REGISTRATIONS, NOT_SHOWN
from fairdraw.proof.verify import verify
from tests.fairdraw.proof.draws import CAMPAIGN, FIRST, Terms, entrants, write_inputs
from tests.fairdraw.proof.registering import EXCLUDED, Registered, registered
from tests.fairdraw.proof.test_logged import IN_TIME, check, failed, leaves_of, logged, state

Receipt = dict[str, Any]
STEP = "registration"


@dataclasses.dataclass
class Draw:
    folder: Path
    listed: Registered
    source: Any

    def receipt(self, ref: str, **options: Any) -> Receipt:
        options = {"reasons": lambda _ref: ["NO_MARKET"], "registrations": self.source} | options
        return build_receipt(self.folder, ref, **options)

    @property
    def moved(self) -> OpenedRegistration:
        """A drawn entry that got another unit before the draw."""
        return next(
            self.listed.opened[index]
            for index, each in self.listed.tree.noted.items()
            if each.ended is None and self.listed.opened[index].class_ == "drawn"
        )

    @property
    def excluded(self) -> OpenedRegistration:
        return next(
            each for each in self.listed.opened.values() if each.class_ is EXCLUDED and each.unit != each.ref
        )


@pytest.fixture(scope="module")
def draw(tmp_path_factory: pytest.TempPathFactory) -> Draw:
    root = tmp_path_factory.mktemp("registered")
    leaves = entrants()
    listed = registered(Random(1), CAMPAIGN, {leaf.ref: leaf.unit for leaf in leaves}, outside=9)
    listed.register(Random(2), "outside", "u-" + "A" * 43, EXCLUDED, "NO_MARKET")
    folder = root / "draw" / "phase-1"
    write_inputs(
        folder,
        [leaf.line for leaf in leaves],
        Terms(FIRST, waitlist_size=8),
        registrations=listed.counted(len(leaves)),
    )
    compute(folder, None, folder, engine=Engine(root / "scratch", threads=1, memory_mib=256))
    return Draw(root / "draw", listed, listed.source(root / "entries"))


def with_size(receipt: Receipt, size: LogLeaf | None) -> Receipt:
    """The receipt of a draw that is in a log, with this size of the list before its manifest."""
    return logged(receipt, [*([size] if size else []), *leaves_of(receipt)])


def of_size(hash_: str) -> LogLeaf:
    return LogLeaf(CAMPAIGN, hash_, Kind.REGISTRATIONS, 0, IN_TIME)


def changed(receipt: Receipt, **fields: Any) -> Receipt:
    return receipt | {STEP: {**receipt[STEP], **fields}}


def detail(receipt: Receipt) -> str:
    checked = check(receipt)
    assert failed(checked) == [STEP], failed(checked)
    return state(checked, STEP)[1]


def test_the_receipt_of_a_drawn_entry_shows_it_in_the_list(draw: Draw) -> None:
    own = draw.moved
    receipt = with_size(draw.receipt(own.ref or ""), of_size(draw.listed.size.hash))
    checked = check(receipt)
    assert checked.verdict == "holds" and not checked.findings, (failed(checked), checked.findings)
    outcome, said = state(checked, STEP)
    size = len(draw.listed.entries)
    assert outcome == "passed"
    assert said.splitlines()[0] == (
        f"entry {own.index} of {size} in the list of registrations (from 0), registered at {own.at}"
    )
    assert said.splitlines()[1].endswith(": the entry got another unit")
    assert NOT_SHOWN not in checked_text(checked) and "in the list before the draw" in checked_text(checked)
    shown = dict(values(receipt))
    assert shown["registration salt"] == own.salt and "registration proof 1" in shown
    assert [each.name for each in checked.checks][-3:] == [STEP, "log", "witnesses"]


def test_every_entry_of_the_draw_has_a_registration_that_holds(draw: Draw, tmp_path: Path) -> None:
    index = tmp_path / "leaves.index"
    for own in draw.listed.opened.values():
        if own.class_ in ("drawn", "excluded"):
            receipt = draw.receipt(own.ref or "", index=index)
            assert failed(check(receipt)) == [] and state(check(receipt), STEP)[0] == "passed"


def test_an_excluded_entry_has_its_registration_too_with_the_unit_that_no_leaf_shows(draw: Draw) -> None:
    own = draw.excluded
    receipt = draw.receipt(own.ref or "")
    assert receipt["kind"] == "excluded" and receipt[STEP]["unit"] == own.unit
    assert state(check(receipt), STEP)[0] == "passed"
    del receipt[STEP]["unit"]
    assert "does not follow from ref, unit, time and salt" in detail(receipt)


def test_an_entry_whose_salt_is_gone_has_a_class_that_is_not_checked(draw: Draw) -> None:
    gone = next(each for each in draw.listed.opened.values() if each.class_ == "erased")
    source = dataclasses.replace(draw.source, opened=lambda _ref: gone)
    receipt = draw.receipt("gone", registrations=source)
    assert receipt[STEP] == {"class": "erased", "index": gone.index, "reason": None}
    checked = check(with_size(receipt, of_size(draw.listed.size.hash)))
    assert checked.verdict == "incomplete" and failed(checked) == []
    assert f"entry {gone.index}, which was erased" in state(checked, STEP)[1]


def test_an_entry_that_came_after_the_list_was_frozen_has_no_proof(draw: Draw) -> None:
    late = dataclasses.replace(draw.excluded, index=len(draw.listed.entries))
    source = dataclasses.replace(draw.source, opened=lambda _ref: late)
    receipt = draw.receipt("late", registrations=source)
    assert receipt[STEP] == {"class": "excluded", "index": late.index, "reason": "NO_MARKET"}
    assert state(check(receipt), STEP)[0] == "unchecked"


def test_a_receipt_without_a_registration_says_so(draw: Draw, beaconed: Path) -> None:
    ref = draw.moved.ref or ""
    for receipt, said in (
        (draw.receipt(ref, registrations=None), NOT_SHOWN),
        (build_receipt(beaconed, entrants()[3].ref), NO_REGISTRATIONS),
    ):
        checked = check(receipt)
        assert failed(checked) == [] and state(checked, STEP) == ("passed", said)
        assert "[-] The entry was in the list before the draw: not applicable" in checked_text(checked)
        assert any(limit.lower().startswith(said[:40].lower()) for limit in checked.limits)


def test_a_list_that_the_manifest_does_not_have_proves_nothing(draw: Draw, beaconed: Path) -> None:
    ref = draw.moved.ref or ""
    other = build_receipt(beaconed, entrants()[3].ref)
    assert "the manifest of phase 1 commits to none" in detail(other | {STEP: draw.receipt(ref)[STEP]})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"at": "2023-08-20T08:15:00.124Z"}, "does not follow from ref, unit, time and salt"),
        ({"salt": "0" * 32}, "does not follow from ref, unit, time and salt"),
        ({"leaf": "0" * 64}, "the proof of entry"),
        ({"index": 0}, "the proof of entry"),
        ({"proof": []}, "does not lead to the root"),
        ({"notices": []}, "does not follow from ref, unit, time and salt"),
    ],
)
def test_another_registration_does_not_hold(draw: Draw, fields: Receipt, said: str) -> None:
    receipt = draw.receipt(draw.moved.ref or "")
    if "index" in fields:
        receipt[STEP]["notices"] = []
    assert said in detail(changed(receipt, **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"salt": "A" * 32},
        {"at": "now"},
        {"leaf": "x"},
        {"x": 1},
        {"unit": "u"},
        {"index": -1},
        {"notices": [7]},
    ],
)
def test_a_registration_has_its_form(draw: Draw, fields: Receipt) -> None:
    checked = check(changed(draw.receipt(draw.moved.ref or ""), **fields))
    assert failed(checked) == ["receipt"]


def test_a_notice_of_another_entry_or_in_another_place_does_not_hold(draw: Draw) -> None:
    receipt = draw.receipt(draw.moved.ref or "")
    [own] = receipt[STEP]["notices"]
    for notice in (
        own | {"text": own["text"].replace(f"|{receipt[STEP]['index']}|", "|0|")},
        own | {"index": receipt[STEP]["index"]},
        own | {"text": "vfnote1|x"},
    ):
        assert failed(check(changed(receipt, notices=[notice]))) == ["receipt"]
    moved = own | {"index": own["index"] + 1}
    assert f"the proof of entry {own['index'] + 1} of" in detail(changed(receipt, notices=[moved]))


def withdrawn_and_drawn(folder: Path) -> Receipt:
    """The receipt of an entry that was drawn although entry 3 of the list, which is its own, was withdrawn."""
    leaves = entrants()
    listed = Registered(CAMPAIGN)
    for leaf in leaves:
        listed.register(Random(leaf.ref), leaf.ref, leaf.unit)
    own = listed.opened[3]
    listed.note(own, NoticeKind.WITHDRAWN)
    listed.opened[3] = own
    phase = folder / "draw" / "phase-1"
    counted = dataclasses.replace(listed.counted(len(leaves)), excluded=0, withdrawn=0)
    write_inputs(phase, [leaf.line for leaf in leaves], Terms(FIRST), registrations=counted)
    compute(phase, None, phase, engine=Engine(folder / "scratch", threads=1, memory_mib=256))
    return build_receipt(phase.parent, own.ref or "", registrations=listed.source(folder / "entries"))


def test_an_entry_that_was_withdrawn_and_drawn_does_not_hold(tmp_path: Path) -> None:
    assert "entry 3 was withdrawn before the draw, and drawn" in detail(withdrawn_and_drawn(tmp_path))


def test_a_list_that_is_not_the_last_one_of_the_log_is_a_finding(draw: Draw) -> None:
    receipt = draw.receipt(draw.moved.ref or "")
    older = dataclasses.replace(draw.listed.size, size=len(draw.listed.entries) - 1)
    for size in (of_size(older.hash), None):
        checked = check(with_size(receipt, size))
        assert failed(checked) == [] and checked.verdict == "holds"
        [finding] = checked.findings
        assert finding.startswith("registrations: ") and "the log had last before the manifest" in finding


def test_a_replay_says_what_became_of_the_registrations(draw: Draw, beaconed: Path, tmp_path: Path) -> None:
    counted = draw.listed.counted(len(entrants()))
    said = f"{len(entrants())} drawn, {counted.excluded} excluded, {counted.withdrawn} withdrawn"
    for folder, note in ((draw.folder, said), (beaconed, NO_REGISTRATIONS)):
        done = verify(folder, engine=PlainEngine(tmp_path))
        assert done.passed and any(note in each for each in done.notes), done


def test_the_public_proofs_have_no_salt(draw: Draw, tmp_path: Path) -> None:
    source = ReceiptSource(draw.folder, None, registrations=draw.source)
    assert source.receipt(draw.moved.ref or "")[STEP] is not None
    write_proofs(source, tmp_path, engine=Engine(tmp_path / "scratch", threads=1, memory_mib=256))
    document = gzip.decompress((tmp_path / "draw.json.gz").read_bytes())
    assert b'"registration":null' in document and b"salt" not in document
