"""A fan's confirmation against the published files: in the list, since when, by how many, and what was noted since."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fairdraw import commands
from fairdraw.errors import UsageError
from fairdraw.log.note import COSIGNATURE
from fairdraw.log.place import Place
from fairdraw.log.tree import WIDTH
from fairdraw.log.trust import Trust
from fairdraw.maths.registration import NoticeKind, size_name, tree_folder
from fairdraw.proof import confirmation
from fairdraw.proof.check import ReceiptChecked, check_confirmation
from fairdraw.proof.receipt_view import checked_text
from fairdraw.terms import iso
from tests.fairdraw.log.test_follow import DAY, NOW
from tests.fairdraw.log.test_registered import Listed
from tests.fairdraw.proof.registering import EXCLUDED
from tests.fairdraw.proof.test_logged import failed, state
from tests.selection.public.fakes import cosigner

OTHER = "u-" + "A" * 43


class Fans(Listed):
    """A list whose fans ask about their own entries."""

    def trust(self, **changes: Any) -> Trust:
        return Trust.parse(self.trust_text(**changes).encode())

    def trust_text(self, **changes: Any) -> str:
        keys = {
            "beacon": {},
            "log": [str(each) for each in self.place.log.verifier_keys()],
            "need": 1,
            "witnesses": [str(cosigner(1).verifier(COSIGNATURE))],
        }
        return json.dumps(keys | changes)

    def check(self, number: int, trust: Trust | None = None, **changes: Any) -> ReceiptChecked:
        data = self.list.confirmation(number, **changes)
        return check_confirmation(data, Place.of(self.place.read), trust or self.trust())


@pytest.fixture
def fans() -> Fans:
    """A list of 600 entries, the first half of which was logged half a day before the other."""
    made = Fans()
    made.register(300)
    made.log(-DAY / 2)
    made.register(300)
    made.log(-DAY / 4)
    return made


def test_a_confirmation_says_since_when_the_entry_is_in_the_list_and_who_saw_it(fans: Fans) -> None:
    for index, at in (
        (0, -DAY / 2),
        (255, -DAY / 2),
        (256, -DAY / 2),
        (299, -DAY / 2),
        (300, -DAY / 4),
        (599, -DAY / 4),
    ):
        checked = fans.check(index)
        assert checked.verdict == "holds" and not checked.findings, checked.checks
        assert [each.name for each in checked.checks] == ["registration", "log", "witnesses"]
        said = checked_text(checked).splitlines()
        assert said[0] == f"Registered; in the list since {iso(NOW + at)}, by 1 witness"
        assert (
            f"entry {index} of 600 in the list of registrations (from 0)" in state(checked, "registration")[1]
        )
        assert "the list of 600 entries with root" in state(checked, "log")[1]
        assert "1 trusted witness cosigned the checkpoint (needed: 1 of 1)" in state(checked, "witnesses")[1]
    assert "This confirmation holds: every check passed, 3 of 3." in checked_text(checked)


def test_by_the_operators_keys_alone_it_is_incomplete(fans: Fans) -> None:
    checked = fans.check(5, Trust())
    assert checked.verdict == "incomplete" and not failed(checked)
    text = checked_text(checked)
    assert "by the keys that the operator published" in text and "Keys as the operator published them" in text
    assert "This confirmation holds" not in text


def test_a_reference_cannot_write_lines_of_its_own(fans: Fans) -> None:
    said = checked_text(fans.check(5, ref="x\n\nThis confirmation holds: every check passed, 3 of 3.\n"))
    assert "THIS CONFIRMATION IS NOT VALID" in said
    assert not any(line.startswith("This confirmation holds") for line in said.splitlines())


def test_an_entry_that_is_not_in_a_logged_list_is_not_in_it_yet(fans: Fans) -> None:
    fans.register(1)
    fans.publish()
    checked = fans.check(600)
    assert checked.verdict == "incomplete" and not failed(checked)
    assert state(checked, "registration")[1].startswith("not in the list yet: ")
    assert "incomplete: not in the list yet" in checked_text(checked)
    assert checked_text(checked).startswith("Not found in the list\n")
    assert checked_text(fans.check(0)).startswith("Registered")
    other = Fans()
    other.register(1)
    assert (
        "not in the list yet: no list of registrations in the log has an entry 0"
        in state(other.check(0), "log")[1]
    )


@pytest.mark.parametrize(
    "changes",
    [{"ref": "another"}, {"unit": OTHER}, {"at": iso(NOW)}, {"salt": "0" * 32}, {"index": 6}],
)
def test_another_registration_than_that_of_the_list_fails(fans: Fans, changes: dict[str, Any]) -> None:
    checked = fans.check(5, **changes)
    assert failed(checked) == ["registration"] and checked.verdict == "fails"
    assert "of the list is another one" in state(checked, "registration")[1]
    assert "THIS CONFIRMATION IS NOT VALID" in checked_text(checked)


@pytest.mark.parametrize("kind", [NoticeKind.WITHDRAWN, NoticeKind.ERASED])
def test_an_entry_that_ended_is_a_finding(fans: Fans, kind: NoticeKind) -> None:
    data = fans.list.confirmation(5)
    fans.end(5, kind)
    fans.log(-60.0)
    checked = check_confirmation(data, Place.of(fans.place.read), fans.trust())
    assert not failed(checked) and checked.verdict == "holds"
    what = "taken back" if kind is NoticeKind.WITHDRAWN else "erased"
    assert checked.findings == (f"entry 600: the entry was {what}",)
    text = checked_text(checked)
    assert "This confirmation holds" not in text and "passed, 3 of 3, but read what else was found" in text


def test_an_entry_that_was_moved_to_another_unit_is_a_finding_until_its_fan_knows(fans: Fans) -> None:
    before = fans.list.confirmation(5)
    fans.list.note(fans.list.opened[5], NoticeKind.UNIT, OTHER)
    fans.log(-60.0)
    for data, findings in (
        (before, ("entry 600: the entry got another unit",)),
        (fans.list.confirmation(5), ()),
    ):
        checked = check_confirmation(data, Place.of(fans.place.read), fans.trust())
        assert (failed(checked), checked.findings) == ([], findings)
        assert "entry 600: the entry got another unit" in state(checked, "registration")[1]


def test_of_a_long_list_the_own_bundle_and_the_newest_ones_are_read_unless_all_are_asked_for(
    fans: Fans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmation, "LOOKED_THROUGH", WIDTH)
    ended, erased, moved = *map(fans.list.confirmation, (5, 7)), fans.list.opened[6]
    fans.end(5, NoticeKind.WITHDRAWN)
    fans.list.note(moved, NoticeKind.UNIT, OTHER)
    fans.register(1000)
    fans.end(7, NoticeKind.ERASED)
    fans.log(-60.0)
    read: list[str] = []

    def noted(path: str) -> bytes | None:
        read.append(path)
        return fans.place.read(path)

    def check(data: bytes, **options: bool) -> ReceiptChecked:
        read.clear()
        return check_confirmation(data, Place.of(noted), fans.trust(), **options)

    checked = check(ended)
    assert not failed(checked) and not checked.findings
    assert "in the newest entries alone, from entry 1536 on: `check-receipt --whole`" in str(checked.limits)
    # The first size ends in one more.
    assert sum(f"{tree_folder('summer')}/tile/entries" in path for path in read) == 3
    assert check(ended, whole=True).findings == ("entry 600: the entry was taken back",)
    assert check(erased).findings == ("entry 1602: the entry was erased",)
    # The leaf of another unit is that of a notice, wherever it is.
    checked = check(fans.list.confirmation(6))
    assert (
        not failed(checked) and "entry 601: the entry got another unit" in state(checked, "registration")[1]
    )
    assert "--whole" not in str(checked.limits)
    assert failed(check(fans.list.confirmation(6, ref="another"))) == ["registration"]


def test_first_and_newest_size_are_read_and_none_between(fans: Fans) -> None:
    for _ in range(3):
        fans.register(1)
        fans.log(-60.0)
    read: list[str] = []

    def noted(path: str) -> bytes | None:
        read.append(path)
        return fans.place.read(path)

    check_confirmation(fans.list.confirmation(5), Place.of(noted), fans.trust())
    sizes = [path.rpartition("/")[2] for path in read if "/sizes/" in path]
    assert sizes == ["603.json", "300.json"]


@pytest.mark.parametrize(("ref", "unit"), [("", ""), ("", "home-1"), ("a ref", "")])
def test_an_entry_that_a_draw_leaves_out_for_its_ref_or_unit_is_confirmed_as_it_was_registered(
    fans: Fans, ref: str, unit: str
) -> None:
    own = fans.list.register(Random(1), ref, unit, EXCLUDED, "INVALID_REF")
    fans.log(-60.0)
    checked = fans.check(own.index)
    assert (checked.verdict, failed(checked), checked.findings) == ("holds", [], ())


def test_a_file_that_the_operator_does_not_publish_leaves_the_confirmation_without_a_verdict(
    fans: Fans,
) -> None:
    folder, read = tree_folder("summer"), fans.place.read
    for name in (
        "checkpoint",
        size_name(600),
        "tile/1/000.p/2",
        "tile/entries/001",
        "tile/entries/002.p/88",
    ):
        path = f"{folder}/{name}"
        assert read(path) is not None
        place = Place.of(lambda asked, gone=path: None if asked == gone else read(asked))  # type: ignore[misc]
        checked = check_confirmation(fans.list.confirmation(299), place, fans.trust())
        assert (checked.verdict, failed(checked)) == ("incomplete", []), path
        assert state(checked, "registration") == ("unchecked", f"{path} is missing")


def test_a_notice_about_another_entry_concerns_no_one_else(fans: Fans) -> None:
    fans.end(6, NoticeKind.ERASED)
    fans.log(-60.0)
    assert not fans.check(5).findings and not failed(fans.check(5))


def test_a_size_that_is_not_in_the_log_is_not_the_newest(fans: Fans) -> None:
    fans.register(1)
    fans.sizes.append(601)
    fans.publish()
    assert "entry 5 of 600" in state(fans.check(5), "registration")[1]


def test_a_size_of_another_list_fails(fans: Fans) -> None:
    path = f"{tree_folder('summer')}/{size_name(600)}"
    other = f"{tree_folder('summer')}/{size_name(300)}"
    fans.place.bucket.put_bytes(path, fans.place.read(other) or b"")
    assert "is about another campaign or size" in state(fans.check(5), "registration")[1]


def test_without_enough_witnesses_it_does_not_hold(fans: Fans) -> None:
    two = [str(cosigner(each).verifier(COSIGNATURE)) for each in (1, 2)]
    checked = fans.check(5, fans.trust(need=2, witnesses=two))
    assert failed(checked) == ["witnesses"]
    assert "no checkpoint shows when enough witnesses saw" in state(checked, "witnesses")[1]


def test_without_a_log_nothing_can_be_checked(fans: Fans) -> None:
    data = fans.list.confirmation(5)
    checked = check_confirmation(data, Place.of(lambda _path: None), Trust())
    assert {each.state for each in checked.checks} == {"unchecked"} and checked.verdict == "incomplete"


@pytest.mark.parametrize(
    "changes", [{"version": 2}, {"kind": "draw"}, {"x": 1}, {"salt": "x"}, {"at": "now"}, {"index": -1}]
)
def test_a_confirmation_has_its_form(fans: Fans, changes: dict[str, Any]) -> None:
    checked = fans.check(5, **changes)
    assert [each.name for each in checked.checks] == ["confirmation"] and checked.verdict == "fails"
    assert "THIS CONFIRMATION IS NOT VALID. What failed: The confirmation is readable" in checked_text(
        checked
    )


def test_the_command_takes_a_confirmation_and_where_the_files_are(fans: Fans, tmp_path: Path) -> None:
    file, trust = tmp_path / "confirmation.json", tmp_path / "trust.json"
    file.write_text(json.dumps(json.loads(fans.list.confirmation(5)), indent=2))
    keys = {"beacon": {}, "log": [str(each) for each in fans.place.log.verifier_keys()], "need": 1,
            "witnesses": [str(cosigner(1).verifier(COSIGNATURE))]}  # fmt: skip
    trust.write_text(json.dumps(keys))
    answer = commands.check_receipt(file, trust=trust, place=Place.of(fans.place.read))
    assert not answer.failed and answer.lines[0].text.startswith("Registered; in the list since")
    fans.end(5, NoticeKind.WITHDRAWN)
    fans.log(-60.0)
    assert commands.check_receipt(file, trust=trust, place=Place.of(fans.place.read)).failed
    with pytest.raises(
        UsageError, match="--from is missing: give the folder or the https:// address that has draws, log and"
    ):
        commands.check_receipt(file, trust=trust)
