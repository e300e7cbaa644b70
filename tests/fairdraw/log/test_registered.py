"""Registrations in a log: the list only grew, the manifest counts it, and what came after the close is shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from random import Random

import pytest

from fairdraw.log.follow import FollowedLog
from fairdraw.log.leaves import Kind
from fairdraw.log.parts import log_parts
from fairdraw.log.registered import LateMinute
from fairdraw.maths.files import sha256_hex
from fairdraw.maths.manifest import Manifest
from fairdraw.maths.registration import NoticeKind, TreeState, size_name, tree_folder
from fairdraw.terms import iso
from tests.fairdraw.log.test_follow import DAY, NOW, amended, manifest, opened, witnessed
from tests.fairdraw.proof.registering import EXCLUDED, Registered

MINUTE = 60.0
# Registration closes a day after it opened.
RECORD = opened(opens=-DAY, closes=0.0, registration=True)
FOLDER = tree_folder("summer")


class Listed:
    """A campaign whose list of registrations is logged by an honest operator, until a test does something else."""

    def __init__(self, *, record: bool = True) -> None:
        self.place, self.witness = witnessed()
        self.list, self.rng, self.sizes = Registered("summer"), Random(1), list[int]()
        self.refs: list[str] = []
        # The hashes of the sizes in the log.
        self.logged: list[str] = []
        self.at(-DAY)
        if record:
            self.place.open(RECORD)

    def at(self, seconds: float) -> None:
        """Go to a time, in seconds after the close."""
        self.witness.now = self.place.clock.now = NOW + seconds

    def register(self, count: int, *, drawn: bool = True) -> None:
        for _ in range(count):
            ref = f"{self.rng.getrandbits(64):016x}"
            self.refs += [ref] if drawn else []
            self.list.register(self.rng, ref, ref, *(() if drawn else (EXCLUDED, "NO_MARKET")))

    def publish(self) -> None:
        """Put the files of the list, of which each size so far has one."""
        for path, data in self.list.files(self.sizes).items():
            self.place.bucket.put_bytes(path, data)

    def log(self, seconds: float | None = None) -> None:
        """Log the size that the list has now."""
        if seconds is not None:
            self.at(seconds)
        self.sizes.append(len(self.list.entries))
        self.publish()
        self.logged.append(self.list.size.hash)
        self.place.leaf(Kind.REGISTRATIONS, self.logged[-1], phase=0)

    def draw(self, **counts: object) -> None:
        """Commit and draw, a minute after what was last logged."""
        self.at(self.place.clock.now - NOW + MINUTE)
        due = self.place.clock.now + 700
        plain = Manifest.parse(manifest(round_at=due, refs=sorted(self.refs)))
        counted = dataclasses.replace(self.list.counted(len(self.refs)), **counts)  # type: ignore[arg-type]
        made = dataclasses.replace(plain, as_of=iso(self.place.clock.now), registrations=counted)
        leaves = b"".join(f"{ref}|{ref}|1||berlin\n".encode() for ref in sorted(self.refs))
        self.place.put("leaves.txt", leaves)
        self.place.commit(made.to_bytes())
        self.place.result()

    def lose(self, path: str) -> None:
        """Take back a file of the list that was published."""
        read = self.place.read
        self.place.read = lambda each: None if each == f"{FOLDER}/{path}" else read(each)  # type: ignore[method-assign]

    def follow(self, days: float = 0.5) -> FollowedLog:
        return self.place.follow(days)

    def finding(self) -> str:
        [finding] = self.follow().findings
        return finding

    def end(self, index: int, kind: NoticeKind) -> None:
        own = self.list.opened[index]
        self.refs.remove(own.ref or "")
        self.list.note(own, kind)


@pytest.fixture
def listed() -> Listed:
    """An honest list of 310 entries, whose last size is logged an hour before the close."""
    made = Listed()
    made.register(300)
    made.log(-DAY / 2)
    made.register(4, drawn=False)
    made.end(7, NoticeKind.WITHDRAWN)
    made.end(8, NoticeKind.ERASED)
    made.list.note(made.list.opened[301], NoticeKind.UNIT, "u-" + "A" * 43)
    made.register(3)
    made.log(-3_600.0)
    return made


def test_an_honest_list_has_no_finding(listed: Listed) -> None:
    listed.at(60.0)
    listed.draw()
    found = listed.follow()
    assert (found.findings, found.remarks, found.late) == ((), (), ())
    assert found.as_dict()["late"] == []


def test_a_rush_in_the_last_minute_is_counted_and_no_finding(listed: Listed) -> None:
    listed.register(50)
    listed.list.note(listed.list.opened[5], NoticeKind.UNIT, "u-" + "A" * 43)
    listed.list.note(listed.list.opened[5], NoticeKind.UNIT, listed.list.opened[5].ref or "")
    listed.log(40.0)
    listed.end(9, NoticeKind.WITHDRAWN)
    listed.register(1)
    listed.log(59.0)
    listed.register(2)
    listed.log(900.0)
    listed.draw()
    found = listed.follow()
    assert not found.findings
    first, second = iso(NOW + 40)[:16], iso(NOW + 900)[:16]
    assert found.late == (LateMinute("summer", first, 51, 2), LateMinute("summer", second, 2, 0))
    assert str(found.late[0]) == f"summer: late, {first}: 51 registrations, 2 other units"


def test_entries_later_than_15_minutes_are_a_finding_and_notices_are_none(listed: Listed) -> None:
    listed.list.note(listed.list.opened[5], NoticeKind.UNIT, "u-" + "A" * 43)
    listed.list.note(listed.list.opened[5], NoticeKind.UNIT, listed.list.opened[5].ref or "")
    listed.log(901.0)
    listed.draw()
    assert not listed.follow().findings
    later = Listed()
    later.register(3)
    later.log(-60.0)
    later.register(2)
    later.log(901.0)
    later.draw()
    assert later.finding() == (
        f"summer, 2 entries came into the list of registrations between {iso(NOW - 60)} and {iso(NOW + 901)}, more"
        f" than 15 minutes after the campaign closed at {iso(NOW)}: when they were added is the operator's word"
    )


def test_a_log_that_was_unavailable_over_the_close_is_found_from_when_to_when() -> None:
    listed = Listed()
    listed.register(3)
    listed.log(-3 * 3_600.0)
    listed.register(9)
    listed.log(2 * 3_600.0)
    listed.draw()
    assert (
        f"9 entries came into the list of registrations between {iso(NOW - 3 * 3_600)} and"
        in listed.finding()
    )
    from_the_start = Listed()
    from_the_start.register(3)
    from_the_start.log(3_600.0)
    from_the_start.draw()
    assert f"between {iso(NOW - DAY)} and {iso(NOW + 3_600)}" in from_the_start.finding()


def test_an_amendment_in_time_moves_the_close(listed: Listed) -> None:
    listed.at(-60.0)
    listed.place.record(amended(RECORD, closes_at=iso(NOW + 7_200)), 1)
    listed.register(2)
    listed.log(7_100.0)
    listed.at(7_200.0)
    listed.draw()
    assert (listed.follow().findings, listed.follow().late) == ((), ())


def test_an_entry_that_was_exchanged_or_left_out_is_found(listed: Listed) -> None:
    for entries in (
        [*listed.list.entries[:3], *listed.list.entries[4:], listed.list.entries[3]],
        [*listed.list.entries[:20], sha256_hex(b"another").encode(), *listed.list.entries[21:]],
    ):
        listed.list.entries = entries
        listed.publish()
        findings = listed.follow().findings
        assert len(findings) == 2 and all("it did not only grow" in each for each in findings), findings


def test_a_leaf_that_is_no_size_of_the_list_is_found(listed: Listed) -> None:
    listed.place.leaf(Kind.REGISTRATIONS, sha256_hex(b"another list"), phase=0)
    assert "is not size and root of the first entries of the list" in listed.finding()


def test_an_old_size_after_a_new_one_is_found(listed: Listed) -> None:
    first = listed.sizes[0]
    file = listed.place.read(f"{FOLDER}/{size_name(first)}") or b""
    listed.register(1)
    # The log has each fact once, so that of another campaign is the only way to a size again.
    listed.sizes = [first - 1, *listed.sizes]
    listed.publish()
    early = listed.place.read(f"{FOLDER}/{size_name(first - 1)}") or b""
    listed.place.leaf(Kind.REGISTRATIONS, sha256_hex(early), phase=0)
    assert file != early and f"has {first - 1} entries, a leaf before it" in listed.finding()


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"withdrawn": 2, "erased": 0}, "2 withdrawn and 0 erased; the list has"),
        ({"withdrawn": 0, "excluded": 5}, "0 withdrawn and 1 erased; the list has"),
        ({"notices": 2, "excluded": 5}, "2 notices"),
    ],
)
def test_numbers_in_the_manifest_that_the_list_does_not_have_are_found(
    listed: Listed, counts: dict[str, int], said: str
) -> None:
    listed.at(60.0)
    listed.draw(**counts)
    assert said in listed.finding()


def test_another_size_or_root_than_the_last_one_before_the_manifest_is_found(listed: Listed) -> None:
    listed.register(1)
    listed.sizes.append(len(listed.list.entries))
    listed.publish()
    listed.at(60.0)
    listed.draw()
    assert "are not what the log had last before the manifest" in listed.finding()


def test_a_draw_whose_list_is_not_in_the_log_is_found() -> None:
    listed = Listed()
    listed.register(3)
    listed.sizes.append(3)
    listed.publish()
    listed.at(60.0)
    listed.draw()
    assert "3 entries with root" in listed.finding()
    nothing = Listed()
    nothing.at(60.0)
    nothing.draw()
    assert not nothing.follow().findings


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda made: made.list.entries.append(made.list.entries[0]), "one leaf for two entries"),
        (lambda made: made.list.entries.append(b"vfnote1|7|erased|-"), "which was withdrawn before"),
        (lambda made: made.list.entries.append(b"vfnote1|999|erased|-"), "is no earlier leaf"),
        (lambda made: made.list.entries.append(b"nonsense"), "is neither a leaf nor a notice"),
    ],
)
def test_an_entry_that_breaks_the_rules_is_found(
    listed: Listed, change: Callable[[Listed], None], said: str
) -> None:
    change(listed)
    listed.log(-60.0)
    assert said in listed.finding()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("tile/entries/000", "is missing, and the list of registrations has its entries"),
        ("checkpoint", "is not published: the sizes of the list of registrations are unknown"),
        (size_name(300), "is not published, or not the one in the log"),
        ("tile/0/000", "tile/0/000 is not published, or not that of the entries"),
        ("tile/1/000.p/1", "tile/1/000.p/1 is not published, or not that of the entries"),
        ("tile/0/001.p/44", "tile/0/001.p/44 is not published, or not that of the entries"),
        ("tile/entries/001.p/44", "tile/entries/001.p/44 is not published, or not that of the entries"),
    ],
)
def test_a_file_of_the_list_that_is_not_published_is_found(listed: Listed, path: str, said: str) -> None:
    listed.lose(path)
    assert said in listed.finding()


def test_damage_to_many_tiles_is_counted(listed: Listed) -> None:
    for path in listed.list.files(listed.sizes):
        if "/tile/" in path and "entries" not in path:
            listed.place.bucket.put_bytes(path, b"")
    first, second, third, more = listed.follow().findings
    assert all("is not published, or not that of the entries" in each for each in (first, second, third))
    assert more == f"summer, {FOLDER}: not those of the entries are as many files more: 1"


def test_files_of_the_list_that_are_damaged_are_found(listed: Listed) -> None:
    path = f"{FOLDER}/checkpoint"
    data = listed.place.read(path) or b""
    state = TreeState.parse(data)
    for other in (dataclasses.replace(state, campaign_id="winter").to_bytes(), b"{}"):
        listed.place.bucket.put_bytes(path, other)
        assert "registrations/summer/checkpoint: " in listed.finding()
    listed.place.bucket.put_bytes(path, data)
    last = len(listed.list.entries)
    bundle = f"{FOLDER}/tile/entries/001.p/{last - 256}"
    short = (listed.place.read(bundle) or b"")[:66]
    listed.place.bucket.put_bytes(bundle, short)
    assert f"not a bundle of {last - 256} entries" in listed.finding()


def test_a_campaign_that_was_logged_after_its_list_is_found() -> None:
    listed = Listed(record=False)
    listed.register(3)
    listed.log(-DAY + 60)
    listed.place.open(RECORD)
    assert (
        listed.finding()
        == "summer, opened.json: in the log after the first 3 entries of the list of registrations"
    )


def test_a_list_of_a_campaign_that_never_opened_is_found_because_it_has_no_close() -> None:
    listed = Listed(record=False)
    listed.register(3)
    listed.log(3_600.0)
    listed.draw()
    assert listed.finding() == (
        "summer, opened.json: not in the log, and the list of registrations has 3 entries: which of them came after"
        " the close is unknown"
    )
    assert not listed.follow().late and "no leaf says when it opened" in listed.follow().remarks[0]


def test_the_list_of_another_campaign_is_not_read(listed: Listed) -> None:
    listed.lose("checkpoint")
    listed.place.open(opened("winter"))
    assert not listed.place.findings(campaign_id="winter")
    assert listed.place.findings(campaign_id="summer")


def test_a_receipt_has_the_last_size_before_the_manifest_alone(listed: Listed) -> None:
    listed.at(60.0)
    listed.draw()
    listed.register(1)
    listed.log(7 * 3_600.0)
    part = log_parts(listed.place.read)("summer", 1)
    assert part is not None
    kinds = [each["leaf"] for each in part["entries"]]
    [size] = [leaf for leaf in kinds if '"kind":"registrations"' in leaf]
    assert len(kinds) == 4 and '"kind":"opened"' in kinds[0] and kinds[1] == size
