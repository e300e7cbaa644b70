"""The tree of registrations: what a leaf commits to, what notices say, and what does not verify."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import pytest

from fairdraw.errors import DrawError
from fairdraw.log.leaves import Kind, LogLeaf
from fairdraw.maths.files import canonical_bytes, sha256_hex
from fairdraw.maths.merkle import root_over
from fairdraw.maths.registration import (
    Notice,
    NoticeKind,
    OpenedRegistration,
    Registration,
    RegistrationClass,
    RegistrationSize,
    RegistrationTree,
    TreeState,
    registration_leaf,
    size_name,
    tree_folder,
)
from regworkers_core.settings import PROJECT_ROOT

AT, SALT = "2026-11-25T08:00:00.000Z", "0123456789abcdef" * 2


def leaf(number: int) -> str:
    return sha256_hex(str(number).encode())


def tree_of(*entries: str | Notice) -> RegistrationTree:
    tree = RegistrationTree()
    for each in entries:
        tree.add(each.encode() if isinstance(each, str) else each.text)
    return tree


def test_a_leaf_is_the_hash_of_its_labelled_text() -> None:
    text = f"vfreg1|summer|anna|u-x|{AT}|{SALT}"
    assert registration_leaf("summer", "anna", "u-x", AT, SALT) == hashlib.sha256(text.encode()).hexdigest()


def test_a_leaf_is_of_any_text_that_an_entry_may_have_as_its_ref() -> None:
    text = f"vfreg1|summer||Straße 1|{AT}|{SALT}"
    assert registration_leaf("summer", "", "Straße 1", AT, SALT) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("notice", "text"),
    [
        (Notice(0, NoticeKind.WITHDRAWN), b"vfnote1|0|withdrawn|-"),
        (Notice(12, NoticeKind.ERASED), b"vfnote1|12|erased|-"),
        (Notice(7, NoticeKind.UNIT, "a" * 64), b"vfnote1|7|unit|" + b"a" * 64),
    ],
)
def test_a_notice_is_read_as_it_was_written(notice: Notice, text: bytes) -> None:
    assert notice.text == text
    assert Notice.parse(text) == notice


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"vfnote1|01|withdrawn|-",
        b"vfnote1|-1|withdrawn|-",
        b"vfnote1|1|withdrawn|" + b"a" * 64,
        b"vfnote1|1|unit|-",
        b"vfnote1|1|unit|" + b"A" * 64,
        b"vfnote1|1|gone|-",
        b"vfnote2|1|erased|-",
        b"vfnote1|1|erased|-\n",
        b"a" * 64,
    ],
)
def test_no_other_text_is_a_notice(text: bytes) -> None:
    assert Notice.parse(text) is None


def test_a_tree_counts_its_entries_and_has_their_root() -> None:
    entries = [
        leaf(0),
        leaf(1),
        Notice(0, NoticeKind.UNIT, leaf(2)),
        Notice(1, NoticeKind.WITHDRAWN),
        leaf(3),
    ]
    tree = tree_of(*entries)
    lines = [each.encode() if isinstance(each, str) else each.text for each in entries]
    assert tree.root == root_over(b"".join(line + b"\n" for line in lines))
    assert (tree.size, tree.notices, tree.withdrawn, tree.erased) == (5, 2, 1, 0)


def test_an_empty_tree_has_the_root_over_nothing() -> None:
    assert (tree_of().size, tree_of().root) == (0, hashlib.sha256(b"").hexdigest())


def test_the_last_unit_of_a_registration_counts() -> None:
    tree = tree_of(leaf(0), Notice(0, NoticeKind.UNIT, leaf(1)), Notice(0, NoticeKind.UNIT, leaf(2)))
    found = tree.at(0)
    assert found is not None
    assert (found.leaf, found.current, found.ended) == (leaf(0), leaf(2), None)
    assert [each.index for each in found.notices] == [1, 2]


def test_a_registration_may_go_back_to_a_unit_that_it_had() -> None:
    tree = tree_of(leaf(0), Notice(0, NoticeKind.UNIT, leaf(1)), Notice(0, NoticeKind.UNIT, leaf(0)))
    assert tree.noted[0].current == leaf(0)


@pytest.mark.parametrize("kind", [NoticeKind.WITHDRAWN, NoticeKind.ERASED])
def test_a_registration_that_ended_stays_so(kind: NoticeKind) -> None:
    tree = tree_of(leaf(0), Notice(0, kind))
    assert tree.noted[0].ended is kind
    for after in (
        Notice(0, NoticeKind.WITHDRAWN),
        Notice(0, NoticeKind.ERASED),
        Notice(0, NoticeKind.UNIT, leaf(9)),
    ):
        with pytest.raises(DrawError, match=f"entry 2 is a notice about entry 0, which was {kind} before"):
            tree.add(after.text)
    assert tree.size == 2


def test_a_notice_is_about_an_earlier_leaf() -> None:
    tree = tree_of(leaf(0), Notice(0, NoticeKind.UNIT, leaf(1)))
    for index in (1, 2, 3, 10**15):
        with pytest.raises(DrawError, match=f"entry 2 is a notice about entry {index}, which is no earlier"):
            tree.add(Notice(index, NoticeKind.ERASED).text)


def test_no_two_entries_have_one_leaf_whatever_became_of_the_first() -> None:
    tree = tree_of(
        leaf(0),
        leaf(1),
        Notice(0, NoticeKind.WITHDRAWN),
        Notice(1, NoticeKind.UNIT, leaf(2)),
        Notice(1, NoticeKind.UNIT, leaf(3)),
    )
    for number, owner in ((0, 0), (1, 1), (2, 1), (3, 1)):
        with pytest.raises(DrawError, match=f"entry 5 has the leaf of entry {owner}: one leaf for two"):
            tree.add(leaf(number).encode())
    with pytest.raises(DrawError, match="entry 5 has the leaf of entry 0: one leaf for two"):
        tree.add(Notice(1, NoticeKind.UNIT, leaf(0)).text)


@pytest.mark.parametrize("entry", [b"", b"A" * 64, b"a" * 63, b"vfnote1|0|gone|-", "ä".encode() * 32])
def test_an_entry_is_a_leaf_or_a_notice(entry: bytes) -> None:
    tree = tree_of(leaf(0))
    with pytest.raises(DrawError, match="entry 1 is neither a leaf nor a notice"):
        tree.add(entry)
    assert (tree.size, tree.root) == (1, tree_of(leaf(0)).root)


def test_every_leaf_is_found_in_a_tree_that_outgrew_its_table() -> None:
    tree = tree_of(*(leaf(number) for number in range(3000)), Notice(5, NoticeKind.UNIT, leaf(3000)))
    for number in (0, 511, 512, 513, 2999):
        assert tree.find(leaf(number)) == Registration(number, leaf(number))
    assert tree.find(leaf(3000)) == tree.find(leaf(5)) == tree.noted[5]
    assert tree.find(leaf(3001)) is None
    assert tree.find("0" * 64) is None


def test_a_leaf_of_zeros_is_not_taken_for_the_place_of_a_notice() -> None:
    tree = tree_of(leaf(0), Notice(0, NoticeKind.ERASED), "0" * 64)
    assert tree.find("0" * 64) == Registration(2, "0" * 64)
    for number in range(1, 2000):
        tree.add(leaf(number).encode())
    assert tree.find("0" * 64) == Registration(2, "0" * 64)


def test_a_size_is_one_leaf_of_the_log() -> None:
    size = RegistrationSize("summer", "a" * 64, 7)
    assert size.to_bytes() == b'{"campaignId":"summer","root":"' + b"a" * 64 + b'","size":7}'
    assert f"{tree_folder('summer')}/{size_name(7)}" == "registrations/summer/sizes/7.json"
    leaf = LogLeaf("summer", size.hash, Kind.REGISTRATIONS, 0, AT)
    assert LogLeaf.parse(leaf.to_bytes()) == leaf
    with pytest.raises(DrawError, match="0 is needed for registrations, found 1"):
        replace(leaf, phase=1).to_bytes()


def test_the_checkpoint_of_a_tree_is_read_as_it_was_written() -> None:
    state = TreeState("summer", erased=1, withdrawn=2, notices=4, root="a" * 64, size=9, sizes=(3, 9))
    assert state.to_bytes() == (
        b'{"campaignId":"summer","erased":1,"notices":4,"root":"' + b"a" * 64 + b'","size":9,"sizes":[3,9],'
        b'"withdrawn":2}'
    )
    assert TreeState.parse(state.to_bytes()) == state
    for sizes in ((3, 3), (9, 3), (0, 3), (10,), (True,)):
        with pytest.raises(DrawError, match="numbers from 1 to 9 that increase are needed"):
            replace(state, sizes=sizes).to_bytes()


def test_an_opened_registration_is_read_as_it_was_written() -> None:
    drawn = OpenedRegistration(RegistrationClass.DRAWN, 3, AT, "anna", SALT, "anna")
    assert drawn.to_bytes() == canonical_bytes(
        {
            "at": AT,
            "class": "drawn",
            "index": 3,
            "reason": None,
            "ref": "anna",
            "salt": SALT,
            "unit": "anna",
        }
    )
    gone = OpenedRegistration(RegistrationClass.ERASED, 4, None, None, None, None)
    excluded = OpenedRegistration(
        RegistrationClass.EXCLUDED, 5, AT, "", SALT, "", "INVALID_REF,NO_PREFERENCE"
    )
    for each in (drawn, gone, excluded):
        assert OpenedRegistration.parse(each.to_bytes()) == each


@pytest.mark.parametrize(
    "changed",
    [
        {"reason": "RULES"},
        {"class_": RegistrationClass.EXCLUDED},
        {"salt": "A" * 32},
        {"salt": "a" * 31},
        {"at": "2026-11-25T08:00:00Z"},
        {"index": -1},
    ],
)
def test_an_opened_registration_has_its_form(changed: dict[str, object]) -> None:
    drawn = OpenedRegistration(RegistrationClass.DRAWN, 3, AT, "anna", SALT, "anna")
    with pytest.raises(DrawError):
        replace(drawn, **changed).to_bytes()  # type: ignore[arg-type]


def test_the_example_of_the_rules_is_right() -> None:
    rules = (PROJECT_ROOT / "docs" / "draw-rules.md").read_text(encoding="utf-8")
    section = rules.partition("## 12 Registrations")[2].partition("\n## ")[0]
    *_, texts, entries, size = re.findall(r"```text\n(.*?)```", section, re.DOTALL)
    hashes = [sha256_hex(text.encode()) for text in texts.splitlines()]
    tree = tree_of(hashes[0], hashes[1], Notice(1, NoticeKind.UNIT, hashes[2]))
    assert entries.splitlines() == [hashes[0], hashes[1], f"vfnote1|1|unit|{hashes[2]}"]
    file = RegistrationSize("demo", tree.root, 3)
    assert size == f"{file.to_bytes().decode()}\n" and f"({file.hash[:8]})" in section
