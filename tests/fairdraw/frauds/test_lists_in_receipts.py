"""Frauds on registrations that a fan's receipt shows, and on the list that the manifest commits to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest

from fairdraw.large.receipts import Receipt, RegistrationSource, build_receipt
from fairdraw.log import registered as logged_lists
from fairdraw.log.leaves import Kind, LogLeaf
from fairdraw.log.registered import RegistrationAccount
from fairdraw.maths import registration
from fairdraw.maths.files import canonical_bytes
from fairdraw.maths.leaves import Leaf
from fairdraw.maths.manifest import Registrations
from fairdraw.maths.registration import NoticeKind, RegistrationTree
from fairdraw.proof.check import check_receipt
from fairdraw.proof.registered import RegistrationPart
from fairdraw.terms import iso
from tests.fairdraw.frauds.forging import failed, page_says, page_without, redraw, without
from tests.fairdraw.frauds.test_with_the_log import (
    BEFORE,
    LEAVES,
    TRUST,
    TRUSTED,
    files_of,
    found,
    leaf,
    leaves_of,
    log_of,
    with_log,
)
from tests.fairdraw.proof.draws import CAMPAIGN, FIRST, Terms, write_inputs
from tests.fairdraw.proof.registering import EXCLUDED, Registered
from tests.fairdraw.proof.test_record_in_receipts import OPENED
from tests.fairdraw.verifier.node import BUNDLE

OTHER = "u-" + "A" * 43
# It opens some minutes before the witnesses see its log.
WINDOW = {"opens_at": iso(BEFORE - 500), "closes_at": iso(BEFORE - 400)}
RECORD = replace(OPENED, registration=True, waitlist_size=None, **WINDOW)


def honest_list() -> Registered:
    """All entries of the draw, one that is excluded, and one that was taken back."""
    made, rng = Registered(CAMPAIGN), Random(1)
    for each in LEAVES:
        made.register(rng, each.ref, each.unit)
    made.register(rng, "excluded", "excluded", EXCLUDED, "NO_MARKET")
    made.note(made.register(rng, "withdrawn", "withdrawn"), NoticeKind.WITHDRAWN)
    return made


@dataclass
class Draw:
    folder: Path
    listed: Registered
    source: RegistrationSource

    def receipt(self, ref: str) -> Receipt:
        return build_receipt(self.folder, ref, reasons=lambda _ref: ["NO_MARKET"], registrations=self.source)

    @property
    def log(self) -> list[LogLeaf]:
        """The campaign, its list and its draw as an honest operator logs them."""
        opened = [leaf(Kind.OPENED, RECORD.hash, 0)] if (self.folder / "opened.json").exists() else []
        return [*opened, leaf(Kind.REGISTRATIONS, self.listed.size.hash, 0), *leaves_of(self.folder)]

    def files(self, *sizes: int) -> dict[str, bytes]:
        record = {f"draws/{CAMPAIGN}/{each.name}": each.read_bytes() for each in self.folder.glob("*.json")}
        return files_of(self.folder) | record | self.listed.files(sizes or [len(self.listed.entries)])


def draw_of(
    root: Path,
    listed: Registered,
    leaves: list[Leaf] = LEAVES,
    counted: Registrations | None = None,
    *,
    counts: bool = True,
) -> Draw:
    """`counts`: whether the manifest has a list, and the log the campaign as it opened."""
    phase = root / "draw" / "phase-1"
    counted = (counted or listed.counted(len(leaves))) if counts else None
    write_inputs(phase, [each.line for each in leaves], Terms(FIRST), registrations=counted)
    redraw(phase, root)
    if counts:
        (root / "draw" / "opened.json").write_bytes(RECORD.to_bytes())
    return Draw(root / "draw", listed, listed.source(root / "entries"))


def logged(draw: Draw, receipt: Receipt) -> Receipt:
    return with_log(receipt, log_of(draw.log))


def test_the_list_of_an_honest_operator_holds(tmp_path: Path) -> None:
    draw = draw_of(tmp_path, honest_list())
    for ref in (LEAVES[3].ref, "excluded"):
        assert failed(logged(draw, draw.receipt(ref)), TRUST) == []
    assert found(log_of(draw.log), draw.files()) == []


def test_an_entry_that_was_left_out_and_shown_as_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The operator registers another person at the place of the fan, and excludes the fan.
    listed = honest_list()
    draw = draw_of(tmp_path, listed)
    other = listed.opened[5]
    draw.source = replace(draw.source, opened=lambda _ref: other)
    receipt = logged(draw, draw.receipt("left-out"))
    assert failed(receipt, TRUST) == ["registration"]
    without(
        monkeypatch,
        RegistrationPart.check,
        "registration_leaf(manifest.campaign_id, ref, own, self._at, self._salt) != found.current",
    )
    page_without(monkeypatch, "leaf !== current")
    assert failed(receipt, TRUST) == []


def test_an_entry_that_never_was_in_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its leaf is right, and no proof leads from it to the list.
    listed = honest_list()
    draw = draw_of(tmp_path, listed)
    receipt = logged(draw, draw.receipt(LEAVES[3].ref))
    invented = listed.opened[3]
    another = registration.registration_leaf(
        CAMPAIGN, invented.ref or "", invented.unit or "", iso(BEFORE), invented.salt or ""
    )
    receipt["registration"] |= {"at": iso(BEFORE), "leaf": another}
    assert failed(receipt, TRUST) == ["registration"]
    without(
        monkeypatch, RegistrationPart.check, "not verify_proof(text, index, logged.size, proof, logged.root)"
    )
    page_without(monkeypatch, "!verifyInclusion(text, index, size, proof, root)")
    assert failed(receipt, TRUST) == []


def test_an_entry_that_was_moved_to_another_household_after_it_was_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = honest_list()
    alone = next(at for at, each in enumerate(LEAVES) if each.unit == each.ref)
    moved = [replace(each, unit=OTHER) if at == alone else each for at, each in enumerate(LEAVES)]
    draw = draw_of(tmp_path, listed, moved)
    receipt = logged(draw, draw.receipt(LEAVES[alone].ref))
    assert failed(receipt, TRUST) == ["registration"]
    # With a notice it holds, and shows the notice to its fan.
    listed.note(listed.opened[alone], NoticeKind.UNIT, OTHER)
    second = draw_of(tmp_path / "second", listed, moved)
    noted = second.receipt(LEAVES[alone].ref)
    assert failed(logged(second, noted), TRUST) == [] and len(noted["registration"]["notices"]) == 1
    without(
        monkeypatch,
        RegistrationPart.check,
        "registration_leaf(manifest.campaign_id, ref, own, self._at, self._salt) != found.current",
    )
    page_without(monkeypatch, "leaf !== current")
    assert failed(receipt, TRUST) == []


def test_an_entry_that_was_taken_back_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = honest_list()
    own = listed.opened[3]
    listed.note(own, NoticeKind.WITHDRAWN)
    listed.opened[3] = own
    true = listed.counted(len(LEAVES))
    counted = replace(true, withdrawn=true.withdrawn - 1, excluded=true.excluded + 1)
    draw = draw_of(tmp_path, listed, counted=counted)
    receipt = logged(draw, draw.receipt(own.ref or ""))
    assert failed(receipt, TRUST) == ["registration"]
    said = found(log_of(draw.log), draw.files())
    assert len(said) == 1 and "the list has" in said[0]
    without(monkeypatch, RegistrationPart.check, "unit is not None and found.ended is not None")
    page_without(monkeypatch, "unit !== null && ended !== null")
    assert failed(receipt, TRUST) == []
    without(
        monkeypatch,
        RegistrationAccount.findings,
        "counted is not None and found[counted.size] != Numbers.of(counted)",
    )
    assert found(log_of(draw.log), draw.files()) == []


@pytest.mark.parametrize("counts", ["another", "none"])
def test_another_list_than_the_last_one_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: str
) -> None:
    listed = honest_list()
    if counts == "another":
        draw = draw_of(tmp_path, listed)
        other = replace(listed.size, root="0" * 64)
        log = log_of([draw.log[0], leaf(Kind.REGISTRATIONS, other.hash, 0), *leaves_of(draw.folder)])
        receipt = with_log(draw.receipt(LEAVES[3].ref), log)
    else:
        # The campaign never opened in the log, so that nothing says that the draw has to count a list.
        draw = draw_of(tmp_path, listed, counts=False)
        log = log_of(draw.log)
        receipt = with_log(build_receipt(draw.folder, LEAVES[3].ref), log)
    said = found(log, draw.files())
    assert any("the log had last before the manifest" in each for each in said)
    assert failed(receipt, TRUST) == []
    data = canonical_bytes(receipt)
    findings = check_receipt(data, TRUSTED).findings
    # Without its curves the page checks no log.
    assert not BUNDLE.exists() or [*findings] == page_says(data, TRUST)["findings"]
    assert any("the log had last before the manifest" in each for each in findings)
    for module in (logged_lists, "fairdraw.proof.logged"):
        name = module if isinstance(module, str) else module.__name__
        monkeypatch.setattr(f"{name}.size_problem", lambda *_: "")
    assert not any("the log had last before" in each for each in found(log, draw.files()))


def test_one_registration_for_two_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two fans get the same index and leaf, and one of them can be dropped unseen.
    listed = honest_list()
    counted = replace(listed.counted(len(LEAVES)), size=len(listed.entries) + 1)
    listed.entries.append(listed.entries[3])
    counted = replace(counted, excluded=counted.excluded + 1, root=listed.size.root)
    draw = draw_of(tmp_path, listed, counted=counted)
    said = found(log_of(draw.log), draw.files())
    assert len(said) == 1 and "one leaf for two entries" in said[0]
    without(monkeypatch, RegistrationTree._add_leaf, "found is not None and found.index != owner")
    assert found(log_of(draw.log), draw.files()) == []
