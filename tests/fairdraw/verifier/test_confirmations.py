"""The check of a confirmation on the page and the one in Python: one verdict, one failing step, the same words."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random

import pytest

from fairdraw.log.leaves import Kind, LogLeaf
from fairdraw.log.tree import root_over, write_bundle
from fairdraw.maths.files import canonical_bytes, sha256_hex
from fairdraw.maths.merkle import leaf_hash
from fairdraw.maths.registration import NoticeKind, RegistrationSize
from fairdraw.proof.confirmation import LOOKED_THROUGH
from fairdraw.terms import iso
from tests.fairdraw.log.test_follow import DAY, NOW, manifest
from tests.fairdraw.proof.test_confirmation import Fans
from tests.fairdraw.verifier.confirmations import (
    PublishedList,
    changed,
    page_says,
    python_says,
    random_list,
    witnessed_list,
)
from tests.fairdraw.verifier.node import BUNDLE, Node

pytestmark = pytest.mark.skipif(not BUNDLE.exists(), reason="run `make verifier`")


_MANIFEST = "draws/summer/phase-1/manifest.json"
# Why an entry is not in the list.
_REASONS = ("not in the list yet", "the draw closed it at", "names no list of registrations that is leaf")


@pytest.mark.parametrize("lists", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_confirmations_get_the_same_answer_from_both(
    javascript: Node, tmp_path: Path, record_property: Callable[[str, object], None], lists: int
) -> None:
    rng, states, said = Random(lists), Counter[str](), Counter[str]()
    copy = tmp_path / "changed"
    for number in range(lists):
        made = random_list(rng, tmp_path / str(number))
        for confirmation in rng.sample(made.confirmations, min(3, len(made.confirmations))):
            data, trust = (
                canonical_bytes(confirmation.as_document()),
                rng.choice((made.trust, made.trust, None)),
            )
            for change in range(6):
                shutil.copytree(made.folder, copy)
                given = changed(rng, copy, confirmation) if change else data
                ours, theirs = python_says(given, copy, trust), page_says(javascript, given, copy, trust)
                assert ours == theirs, (number, given)
                states.update(f"{name} {state}" for name, state, _ in ours["steps"])
                shutil.rmtree(copy)
                said.update(reason for reason in _REASONS if reason in str(ours["steps"]))
    record_property("shown", f"{lists} lists: {dict(states)}, {dict(said)}")
    assert said.keys() == {*_REASONS} or lists < 60
    for name in ("registration", "log", "witnesses"):
        assert states[f"{name} passed"] and states[f"{name} failed"]
    assert states["witnesses unchecked"] and states["confirmation failed"]


def test_notices_are_looked_for_in_the_newest_entries_or_in_all_by_both(
    javascript: Node, tmp_path: Path
) -> None:
    rng = Random(4)
    made = random_list(rng, tmp_path, counts=(9000, LOOKED_THROUGH))
    looked, read, folder = Counter[bool](), Counter[bool](), made.folder
    moved = [
        each
        for each in made.confirmations
        if each.index < 9000 and each.unit not in (None, "", "home-1", "é 😀|")
    ]
    for confirmation in (*rng.sample(made.confirmations, 6), *moved[:2]):
        data = canonical_bytes(confirmation.as_document())
        for whole in (False, True):
            ours = python_says(data, folder, made.trust, whole=whole)
            assert ours == page_says(javascript, data, folder, made.trust, whole=whole), (confirmation, whole)
            read[whole] += ours["steps"][0][1] == "passed"
            looked[whole] += "--whole" in str(ours["limits"])
    assert moved and looked[False] and not looked[True]
    assert read == {False: 8, True: 8}


def _beyond_the_draw(fans: Fans) -> bytes:
    fans.draw()
    fans.register(1)
    fans.log()
    return fans.list.confirmation(600)


def _counted_and_not_listed(fans: Fans) -> bytes:
    fans.register(1)
    fans.draw()
    return fans.list.confirmation(600)


def _manifest_missing(fans: Fans) -> bytes:
    fans.draw()
    fans.place.bucket.delete(_MANIFEST)
    return fans.list.confirmation(400)


def _manifest_changed(fans: Fans) -> bytes:
    confirmation = _manifest_missing(fans)
    fans.place.bucket.put_bytes(_MANIFEST, b"{}")
    return confirmation


def _manifest_replaced(fans: Fans) -> bytes:
    """The log has the second one, and its file is not published yet."""
    fans.draw()
    fans.place.leaf(Kind.MANIFEST, "ab" * 32)
    return fans.list.confirmation(400)


def _manifest_of_another_list(fans: Fans) -> bytes:
    """The first one counts a list with another entry, the second one that with the fan's."""
    before = _replace(fans, b"a" * 64)
    fans.draw()
    _replace(fans, before)
    fans.draw()
    return fans.list.confirmation(5)


def _opened_again(fans: Fans) -> bytes:
    """Only the list after the second opening has the entry, and the draw was before it."""
    fans.draw()
    fans.place.leaf(Kind.OPENED, "ab" * 32, phase=0)
    fans.register(1)
    fans.log()
    return fans.list.confirmation(600)


def _older_list_again(fans: Fans) -> bytes:
    fact = LogLeaf("summer", fans.logged[0], Kind.REGISTRATIONS, 0, iso(NOW)).fact
    # Else an honest log has it once.
    fans.place.bucket.delete(f"log/facts/{sha256_hex(fact)}")
    fans.place.leaf(Kind.REGISTRATIONS, fans.logged[0], phase=0)
    return fans.list.confirmation(400)


def _shorter_than_the_draw(fans: Fans) -> bytes:
    fans.draw()
    del fans.list.entries[512:]
    fans.sizes = [300]
    fans.log()
    return fans.list.confirmation(5)


def _bundle_of_fewer_entries(fans: Fans) -> bytes:
    """The root is that over bundles as they are published, and the size more than these have."""
    bundles = [fans.list.entries[first:end] for first, end in ((0, 255), (255, 511), (511, 599))]
    root = root_over([root_over([*map(leaf_hash, each)]) for each in bundles]).hex()
    size = RegistrationSize("summer", root, 600)
    fans.place.leaf(Kind.REGISTRATIONS, size.hash, phase=0)
    files = {"sizes/600.json": size.to_bytes()}
    files |= {
        f"tile/entries/{name}": write_bundle(each)
        for name, each in zip(("000", "001", "002.p/88"), bundles, strict=True)
    }
    for name, data in files.items():
        fans.place.bucket.put_bytes(f"registrations/summer/{name}", data)
    return fans.list.confirmation(100)


def _another_draw_list(fans: Fans) -> bytes:
    """The manifest counts an older list than the log had last."""
    counted = fans.list.counted(0)
    fans.register(1)
    fans.log()
    fans.refs.pop()
    fans.draw(size=counted.size, root=counted.root, excluded=0)
    return fans.list.confirmation(400)


def _draw_without_a_list(fans: Fans) -> bytes:
    """The campaign did not open in the log, and its manifest answers for no registrations."""
    fans.place.commit(manifest())
    return fans.list.confirmation(5)


def _annulled(fans: Fans) -> bytes:
    fans.draw()
    fans.place.annul()
    return fans.list.confirmation(5)


def _replace(fans: Fans, entry: bytes) -> bytes:
    """Log a list in which entry 5 is another one, beside the former sizes; returns what it was."""
    before, fans.list.entries[5] = fans.list.entries[5], entry
    sizes = {path: data for path, data in fans.place.bucket.stored.items() if "/sizes/" in path}
    fans.register(1)
    fans.log()
    for path, data in sizes.items():
        fans.place.bucket.put_bytes(path, data)
    return before


def _replaced_after_the_draw(fans: Fans) -> bytes:
    """The other entry says that it was registered at the time of the one before."""
    fans.draw()
    own = fans.list.register(fans.rng, "vip", "vip")
    fans.list.opened[5] = replace(own, index=5)
    _replace(fans, fans.list.entries.pop())
    return fans.list.confirmation(5)


def _replaced_for_the_draw(fans: Fans) -> bytes:
    """The lists before and after it have the entry."""
    before = _replace(fans, b"a" * 64)
    fans.draw()
    _replace(fans, before)
    return fans.list.confirmation(5)


def _unit_of_another_ref(fans: Fans) -> bytes:
    other = replace(fans.list.opened[5], ref="vip")
    fans.list.note(other, NoticeKind.UNIT, "vip")
    fans.log(-60.0)
    return fans.list.confirmation(5)


def _unit_after_the_draw(fans: Fans) -> bytes:
    fans.draw()
    return _unit_of_another_ref(fans)


def _notice_hidden(fans: Fans) -> bytes:
    """The host publishes the list as it was before the newest size."""
    before = dict(fans.place.bucket.stored)
    fans.register(1)
    confirmation = fans.list.confirmation(5)
    fans.end(5, NoticeKind.WITHDRAWN)
    fans.log(-60.0)
    for path, data in before.items():
        if path.startswith("registrations/"):
            fans.place.bucket.put_bytes(path, data)
    return confirmation


def _no_sizes(fans: Fans) -> bytes:
    fans.sizes = []
    fans.publish()
    return fans.list.confirmation(400)


def _size_changed(fans: Fans) -> bytes:
    fans.place.bucket.put_bytes("registrations/summer/sizes/600.json", b"{}")
    return fans.list.confirmation(400)


def _no_checkpoint(fans: Fans) -> bytes:
    fans.place.bucket.delete("registrations/summer/checkpoint")
    return fans.list.confirmation(400)


def _not_logged(fans: Fans) -> bytes:
    fans.register(1)
    fans.sizes.append(601)
    fans.publish()
    return fans.list.confirmation(600)


def _other_entry(fans: Fans) -> bytes:
    return fans.list.confirmation(400, ref="another")


def _withdrawn(fans: Fans) -> bytes:
    confirmation = fans.list.confirmation(5)
    fans.end(5, NoticeKind.WITHDRAWN)
    fans.log(-60.0)
    return confirmation


def _other_tile(fans: Fans) -> bytes:
    fans.place.bucket.put_bytes("registrations/summer/tile/1/000.p/2", bytes(64))
    return fans.list.confirmation(400)


def _other_list(fans: Fans) -> bytes:
    path = "registrations/summer/tile/entries/002.p/88"
    whole = fans.place.read(path) or b""
    fans.place.bucket.put_bytes(path, whole[:-1] + (b"0" if whole[-1:] != b"0" else b"1"))
    return fans.list.confirmation(400)


@pytest.mark.parametrize(
    ("changed", "state", "said"),
    [
        (_beyond_the_draw, "failed", "not in the list: the draw closed it at 600 entries"),
        (_counted_and_not_listed, "failed", "registrations: 601 entries with root"),
        (_manifest_missing, "unchecked", "draws/summer/phase-1/manifest.json is missing"),
        (_manifest_changed, "failed", "manifest.json: is not the one that is leaf 3 of the log"),
        (
            _manifest_replaced,
            "unchecked",
            "manifest.json is still that of leaf 3 of the log, which leaf 5 replaced",
        ),
        (_manifest_of_another_list, "failed", "are not what the log had last before the manifest"),
        (_opened_again, "failed", "leaf 5 of the log opens the campaign again, after leaf 0"),
        (_older_list_again, "failed", "leaf 3 of the log is the list of leaf 1 again: it did not only grow"),
        (
            _shorter_than_the_draw,
            "failed",
            "the list of 512 entries does not begin with the 600 that the log has",
        ),
        (_bundle_of_fewer_entries, "failed", "tile/entries/000: not a bundle of 256 entries"),
        (_another_draw_list, "failed", "are not what the log had last before the manifest"),
        (
            _replaced_after_the_draw,
            "failed",
            "the list of 601 entries does not begin with the 300 that the log has",
        ),
        (
            _replaced_for_the_draw,
            "failed",
            "the list of 602 entries does not begin with the 601 that the log has",
        ),
        (
            _draw_without_a_list,
            "failed",
            "registrations: null is not what the log had last before the manifest",
        ),
        (_annulled, "passed", "leaf 5 of the log annuls the draw"),
        (_notice_hidden, "failed", "names no list of registrations that is leaf 3 of the log"),
        (_no_sizes, "failed", "names no list of registrations that is leaf 2 of the log: it was changed"),
        (_size_changed, "failed", "or a file in sizes"),
        (_no_checkpoint, "unchecked", "registrations/summer/checkpoint is missing"),
        (
            _not_logged,
            "unchecked",
            "not in the list yet: no list of registrations in the log has an entry 600",
        ),
        (_withdrawn, "passed", "entry 600: the entry was taken back"),
        (_other_entry, "failed", "entry 400 of the list is another one"),
        (_other_list, "failed", "the 600 entries of the list do not have the root that is in the log"),
        (_other_tile, "failed", "the 600 entries of the list do not have the root that is in the log"),
    ],
)
def test_what_a_confirmation_comes_to_says_the_page_as_the_reader(
    javascript: Node, tmp_path: Path, changed: Callable[[Fans], bytes], state: str, said: str
) -> None:
    fans = Fans()
    for at in (-DAY / 2, -DAY / 4):
        fans.register(300)
        fans.log(at)
    data, folder = changed(fans), _folder_of(fans, tmp_path)
    ours = python_says(data, folder, fans.trust_text())
    assert ours == page_says(javascript, data, folder, fans.trust_text())
    name, found, detail = ours["steps"][0]
    assert (name, found) == ("registration", state) and said in detail
    assert (said in ours["findings"]) is (state == "passed")


@pytest.mark.parametrize("changed", [_unit_of_another_ref, _unit_after_the_draw])
def test_a_notice_shows_its_ref_since_it_came_and_no_earlier_by_both(
    javascript: Node, tmp_path: Path, changed: Callable[[Fans], bytes]
) -> None:
    fans = Fans()
    fans.register(600)
    fans.log(-DAY / 2)
    data, folder = changed(fans), _folder_of(fans, tmp_path)
    ours = python_says(data, folder, fans.trust_text())
    assert ours == page_says(javascript, data, folder, fans.trust_text())
    assert ours["verdict"] == "holds" and ours["since"] == f"in the list since {iso(NOW - 60)}, by 1 witness"
    late = (
        "entry 600: what is confirmed came into the list after the draw, which has another leaf for entry 5"
    )
    assert ours["findings"] == ([late] if changed is _unit_after_the_draw else [])


@pytest.mark.parametrize("drawn", [0, 1, 2])
def test_an_entry_that_had_another_unit_in_the_draw_than_before_and_after_is_a_finding_by_both(
    javascript: Node, tmp_path: Path, drawn: int
) -> None:
    """`drawn`: how many of the two notices come before the draw."""
    fans = Fans()
    fans.register(600)
    fans.log(-DAY / 2)
    own, data = fans.list.opened[5], fans.list.confirmation(5)
    for number, unit in enumerate(("vip", own.unit or "")):
        if number == drawn:
            fans.draw()
        fans.list.note(fans.list.opened[5], NoticeKind.UNIT, unit)
        fans.log(-3600.0 * (2 - number) if number < drawn else None)
    if drawn == 2:
        fans.draw()
    folder = _folder_of(fans, tmp_path)
    ours = python_says(data, folder, fans.trust_text())
    assert ours == page_says(javascript, data, folder, fans.trust_text()) and ours["verdict"] == "holds"
    late = (
        "entry 601: what is confirmed came into the list after the draw, which has another leaf for entry 5"
    )
    assert ours["findings"] == ([late] if drawn == 1 else [])
    # It was another one between.
    assert ours["since"] > f"in the list since {iso(NOW - DAY / 2)}"


def test_a_check_says_until_when_it_read_the_log_by_both(javascript: Node, tmp_path: Path) -> None:
    """A host may serve a log without what came later."""
    fans = Fans()
    fans.register(1)
    fans.log(-DAY / 2)
    fans.place.leaf(Kind.REGISTRATIONS, "ab" * 32, "autumn", phase=0)
    data, folder = fans.list.confirmation(0), _folder_of(fans, tmp_path / "before")
    fans.end(0, NoticeKind.WITHDRAWN)
    fans.log(-60.0)
    for place, until in ((folder, -DAY / 2), (_folder_of(fans, tmp_path / "after"), -60.0)):
        ours = python_says(data, place, fans.trust_text())
        assert ours == page_says(javascript, data, place, fans.trust_text())
        assert f"as witnesses saw it at {iso(NOW + until)}: what the list got after that" in str(
            ours["limits"]
        )


def _folder_of(fans: Fans, folder: Path) -> Path:
    """All that is published."""
    for path, data in fans.place.bucket.stored.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def test_a_log_whose_end_was_changed_is_not_read_as_not_yet_by_the_page(
    javascript: Node, tmp_path: Path
) -> None:
    fans = Fans()
    for at in (-DAY / 2, -DAY / 4):
        fans.register(300)
        fans.log(at)
    data, folder = _no_sizes(fans), _folder_of(fans, tmp_path)
    (path,) = (folder / "log" / "tile" / "entries").glob("000.p/3")
    path.write_bytes(path.read_bytes().replace(b"registrations", b"registrationz"))
    answer = page_says(javascript, data, folder, fans.trust_text())
    assert [each[1:] for each in answer["steps"]] == [
        ["failed", "log/checkpoint: its root is not that of the 3 entries"]
    ] * 3


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> PublishedList:
    return witnessed_list(tmp_path_factory.mktemp("lists"))


def _copied(made: PublishedList, folder: Path) -> Path:
    shutil.copytree(made.folder, folder / "copy")
    return folder / "copy"


@pytest.mark.slow
def test_a_missing_file_leaves_the_page_without_a_verdict_and_is_named(
    javascript: Node, published: PublishedList, tmp_path: Path
) -> None:
    copy = _copied(published, tmp_path)
    for path in sorted(each for each in copy.rglob("*") if each.is_file()):
        data = path.read_bytes()
        path.unlink()
        found = page_says(javascript, published.text(0), copy, published.trust)
        assert found["verdict"] in ("holds", "incomplete") or "checkpoints/" in str(path), path
        path.write_bytes(data)
    shutil.rmtree(copy / "log")
    found = page_says(javascript, published.text(0), copy, published.trust)
    assert {each[2] for each in found["steps"]} == {"log/checkpoint is missing"}


def test_a_notice_that_the_fan_may_not_know_is_a_finding_on_the_page(
    javascript: Node, tmp_path: Path
) -> None:
    for seed in count(1):
        made = random_list(Random(seed), tmp_path / str(seed))
        for number in range(len(made.confirmations)):
            found = page_says(javascript, made.text(number), made.folder, made.trust)
            if found["findings"]:
                assert found["findings"][0] in found["steps"][0][2]
                return
