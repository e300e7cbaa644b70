"""An opening of registrations: what the operator shows is compared with the list, the draw, and the classes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fairdraw.commands import audit_registrations
from fairdraw.errors import DrawError, UsageError
from fairdraw.log.place import Place
from fairdraw.maths.files import SEED
from fairdraw.maths.manifest import SeedFile
from fairdraw.maths.registration import NoticeKind, OpenedRegistration, RegistrationClass
from fairdraw.proof.opening_audit import Audited, audit, chosen
from tests.fairdraw.proof.draws import CAMPAIGN, FIRST, RANDOMNESS, Terms, entrants, write_inputs
from tests.fairdraw.proof.registering import DRAWN, EXCLUDED, registered


class Draw:
    """A draw that is committed to with its registrations, and what is published of both."""

    def __init__(self, root: Path, more_withdrawn: int = 0) -> None:
        self.leaves = entrants()
        self.list = registered(Random(4), CAMPAIGN, {leaf.ref: leaf.unit for leaf in self.leaves}, outside=9)
        self.size = len(self.list.entries)
        phase = root / "phase-1"
        true = self.list.counted(len(self.leaves))
        counted = dataclasses.replace(
            true, withdrawn=true.withdrawn + more_withdrawn, excluded=true.excluded - more_withdrawn
        )
        write_inputs(phase, [leaf.line for leaf in self.leaves], Terms(FIRST), registrations=counted)
        folder = f"draws/{CAMPAIGN}/phase-1"
        self.files = {f"{folder}/{each.name}": each.read_bytes() for each in phase.iterdir()}
        self.publish()

    def publish(self) -> None:
        self.files |= self.list.files([*{self.size, len(self.list.entries)}])

    def audit(self, opening: bytes | None = None, sample: int | None = None) -> Audited:
        data = self.list.opening() if opening is None else opening
        return audit(data.splitlines(keepends=True), Place.of(self.files.get), CAMPAIGN, sample)

    def one(self, class_: RegistrationClass = DRAWN) -> OpenedRegistration:
        return next(each for each in self.list.opened.values() if each.class_ is class_)

    def says(self, own: OpenedRegistration, **changes: Any) -> Audited:
        """What comes out if the operator shows this of one registration."""
        rows = self.list.opened | {own.index: dataclasses.replace(own, **changes)}
        return self.audit(b"".join(rows[index].to_bytes() + b"\n" for index in sorted(rows)))


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    return Draw(tmp_path)


def finding(done: Audited) -> str:
    [found] = done.findings
    return found


def test_an_honest_opening_has_no_finding(draw: Draw) -> None:
    done = draw.audit()
    counted = draw.list.counted(len(draw.leaves))
    assert done.findings == ()
    assert done.classes == {
        "drawn": len(draw.leaves),
        "excluded": counted.excluded,
        "withdrawn": counted.withdrawn,
        "erased": counted.erased,
    }
    assert done.due == done.opened + counted.withdrawn + counted.erased == counted.size - counted.notices
    assert all(done.classes.values())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unit": "u-" + "A" * 43}, "what is shown does not give its leaf"),
        ({"at": "2023-08-20T08:15:00.124Z"}, "what is shown does not give its leaf"),
        ({"salt": "0" * 32}, "what is shown does not give its leaf"),
        ({"class_": EXCLUDED, "reason": "RULES"}, "it is excluded by the opening, and in the draw"),
        ({"salt": None}, "it is not shown, and no notice says that it ended"),
    ],
)
def test_a_drawn_entry_that_is_shown_as_another_one_is_found(
    draw: Draw, changes: dict[str, Any], said: str
) -> None:
    own = draw.one()
    assert f"entry {own.index}: {said}" in "\n".join(draw.says(own, **changes).findings)


def test_an_entry_that_was_left_out_has_no_class_that_holds(draw: Draw) -> None:
    own = draw.one(EXCLUDED)
    said = "\n".join(draw.says(own, class_=DRAWN, reason=None).findings)
    assert f"entry {own.index}: it is drawn by the opening, and not in the draw" in said
    assert (
        f"{len(draw.leaves) + 1} registrations are drawn by the opening, {len(draw.leaves)} by the manifest"
        in said
    )
    for class_ in (RegistrationClass.WITHDRAWN, RegistrationClass.ERASED):
        said = "\n".join(draw.says(own, class_=class_, reason=None, salt=None).findings)
        assert f"it is {class_} by the opening, neither withdrawn nor erased by the list" in said


def test_an_entry_that_ended_has_the_class_of_its_notice(draw: Draw) -> None:
    own = draw.one(RegistrationClass.WITHDRAWN)
    said = "\n".join(draw.says(own, class_=RegistrationClass.ERASED).findings)
    assert f"entry {own.index}: it is erased by the opening, withdrawn by the list" in said
    said = "\n".join(draw.says(own, class_=DRAWN).findings)
    assert f"entry {own.index}: it is drawn by the opening, withdrawn by the list" in said


def test_an_entry_that_was_added_after_the_freeze_is_found(tmp_path: Path) -> None:
    draw = Draw(tmp_path)
    stranger = draw.leaves[0]
    index = next(each.index for each in draw.list.opened.values() if each.ref == stranger.ref and each.salt)
    own = draw.list.opened.pop(index)
    said = draw.audit().findings
    assert "1 entries of the draw are no registration of the opening: they were added" in said
    assert any("registrations are not in the opening" in each for each in said)
    # Nor does it help to show another entry in its place, or one of them twice.
    other = next(each for each in draw.list.opened.values() if each.class_ is DRAWN and each.ref != own.ref)
    assert any(
        "or twice in the opening" in each for each in draw.says(own, ref=other.ref, unit=other.unit).findings
    )


def test_a_salt_that_is_gone_after_the_draw_needs_its_notice(draw: Draw) -> None:
    own = draw.one()
    hidden = dataclasses.replace(own, at=None, ref=None, salt=None, unit=None)
    draw.list.note(own, NoticeKind.ERASED)
    draw.list.opened[own.index] = hidden
    draw.publish()
    done = draw.audit()
    assert done.findings == () and done.classes["drawn"] == len(draw.leaves)
    assert draw.list.tree.noted[own.index].ended == "erased"


def test_lines_are_those_of_registrations_in_their_order(draw: Draw) -> None:
    lines = draw.list.opening().splitlines(keepends=True)
    with pytest.raises(DrawError, match="line 2: index: numbers that increase are needed"):
        draw.audit(lines[0] + lines[0])
    with pytest.raises(DrawError, match="the opening, line 2: not canonical JSON"):
        draw.audit(lines[0] + b"x\n")
    notice = next(each.notices[0].index for each in draw.list.tree.noted.values())
    said = "\n".join(draw.says(dataclasses.replace(draw.one(), index=notice)).findings)
    assert f"entry {notice}: no registration of the draw" in said
    late = dataclasses.replace(draw.one(EXCLUDED), index=draw.size)
    assert f"entry {draw.size}: no registration of the draw" in "\n".join(draw.says(late).findings)


def test_of_many_findings_the_first_ones_are_named(draw: Draw) -> None:
    rows = [dataclasses.replace(each, salt="0" * 32) for each in draw.list.opened.values() if each.salt]
    done = draw.audit(b"".join(each.to_bytes() + b"\n" for each in sorted(rows, key=lambda each: each.index)))
    assert len(done.findings) == 21 and done.findings[-1].endswith(" more findings")


def test_a_sample_is_that_of_the_beacon(draw: Draw) -> None:
    tree = draw.list.tree
    found, number = set[int](), 0
    while len(found) < 10:
        text = f"vfaudit1|{RANDOMNESS}|{number}".encode()
        index = int(hashlib.sha256(text).hexdigest(), 16) % draw.size
        number += 1
        if not draw.list.entries[index].startswith(b"vfnote"):
            found.add(index)
    assert chosen(RANDOMNESS, tree, 10) == found
    assert chosen(RANDOMNESS, tree, 10_000) == set(draw.list.opened)
    lines = b"".join(draw.list.opened[index].to_bytes() + b"\n" for index in sorted(found))
    done = draw.audit(lines, sample=10)
    assert (done.findings, done.due) == ((), 10)
    assert draw.audit(sample=10).findings == ()
    missing = draw.audit(b"".join(lines.splitlines(keepends=True)[1:]), sample=10)
    assert finding(missing) == "1 of 10 registrations are not in the opening"
    own = draw.list.opened[next(index for index in sorted(found) if draw.list.opened[index].salt)]
    changed = dataclasses.replace(own, salt="0" * 32)
    data = draw.list.opening().replace(own.to_bytes(), changed.to_bytes())
    assert f"entry {own.index}: what is shown does not give its leaf" in finding(draw.audit(data, sample=10))


def test_a_sample_needs_the_seed_of_the_draw(draw: Draw) -> None:
    path = f"draws/{CAMPAIGN}/phase-1/{SEED}"
    data = draw.files.pop(path)
    with pytest.raises(UsageError, match="the round of the beacon chooses the sample"):
        draw.audit(sample=3)
    draw.files[path] = dataclasses.replace(SeedFile.parse(data), seed="0" * 64).to_bytes()
    with pytest.raises(DrawError, match="does not follow from the manifest"):
        draw.audit(sample=3)


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (
            lambda files: files.pop(f"draws/{CAMPAIGN}/phase-1/manifest.json"),
            UsageError,
            "once a draw commits",
        ),
        (lambda files: files.pop(f"draws/{CAMPAIGN}/phase-1/leaves.txt"), UsageError, "with its result"),
        (
            lambda files: files.pop(f"registrations/{CAMPAIGN}/tile/entries/000.p/SIZE"),
            DrawError,
            "is missing",
        ),
        (
            lambda files: files.update({f"draws/{CAMPAIGN}/phase-1/leaves.txt": b"a|a|1||east\n"}),
            DrawError,
            "is not the list of its manifest",
        ),
        (
            lambda files: files.update({f"draws/{CAMPAIGN}/phase-1/leaves.txt": b"\nno leaf\n"}),
            DrawError,
            "is not the list of its manifest",
        ),
    ],
)
def test_files_that_are_missing_or_others_are_named(
    draw: Draw, change: Callable[[dict[str, bytes]], object], kind: type[Exception], said: str
) -> None:
    named = {path.replace(f".p/{draw.size}", ".p/SIZE"): path for path in draw.files}
    files = {short: draw.files[path] for short, path in named.items()}
    change(files)
    draw.files = {named[short]: data for short, data in files.items()}
    with pytest.raises(kind, match=said):
        draw.audit()


def test_a_list_that_the_manifest_does_not_count_is_refused(tmp_path: Path) -> None:
    other = Draw(tmp_path, more_withdrawn=1)
    with pytest.raises(DrawError, match="; the published list has"):
        other.audit()


def test_a_draw_without_registrations_has_nothing_to_open(draw: Draw, tmp_path: Path) -> None:
    phase = tmp_path / "plain" / "phase-1"
    manifest = write_inputs(phase, [], Terms(FIRST))
    draw.files[f"draws/{CAMPAIGN}/phase-1/manifest.json"] = manifest.to_bytes()
    with pytest.raises(UsageError, match="has no registrations"):
        draw.audit()


def test_the_command_says_what_was_found(draw: Draw, tmp_path: Path) -> None:
    opening = tmp_path / "opening.jsonl"
    opening.write_bytes(draw.list.opening())
    place = Place.of(draw.files.get)
    answer = audit_registrations(CAMPAIGN, opening, place=place)
    assert not answer.failed and json.loads(json.dumps(answer.document))["findings"] == []
    assert "registrations are what the opening says" in answer.lines[0].text
    opening.write_bytes(b"".join(draw.list.opening().splitlines(keepends=True)[1:]))
    answer = audit_registrations(CAMPAIGN, opening, place=place)
    assert answer.failed and answer.lines[0].text.startswith("FINDING: ")
    opening.write_bytes(b"%PDF-1.7\n")
    with pytest.raises(UsageError, match=f"^{opening}: this is no opening"):
        audit_registrations(CAMPAIGN, opening, place=place)
    for wrong in ({"sample": 0}, {"from_": None, "place": None}):
        with pytest.raises(UsageError):
            audit_registrations(CAMPAIGN, opening, **{"place": place, **wrong})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is no id of a campaign"):
        audit_registrations("../x", opening, place=place)
    with pytest.raises(UsageError, match="No such file"):
        audit_registrations(CAMPAIGN, tmp_path / "none", place=place)
