"""The replay of a whole draw from its artefacts: what holds passes, and whatever was changed is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairdraw.errors import UsageError
from fairdraw.large.allocate import LargeEngine
from fairdraw.maths.beside import Annulled
from fairdraw.maths.files import (
    ARTEFACTS,
    MANIFEST,
    RESULT,
    SEED,
    SUMMARY,
    canonical_bytes,
    file_hash,
    sha256_hex,
)
from fairdraw.maths.leaves import unit_of
from fairdraw.maths.merkle import root_over
from fairdraw.proof.verify import Verification, difference, verify
from fairdraw.terms import QUICKNET, iso
from tests.fairdraw.proof import draws
from tests.fairdraw.proof.draws import (
    CAMPAIGN,
    FIRST,
    MORE,
    ROUND,
    UNIT_KEY,
    Terms,
    entrants,
    make,
    publish_beside,
)


def replay(folder: Path, scratch: Path, *published: str) -> Verification:
    engine = LargeEngine(scratch / "scratch", threads=1, memory_mib=256)
    return verify(folder, engine=engine, published=published)


ZEROS = "0" * 64


def named(done: Verification) -> list[str]:
    return [finding.artefact for finding in done.findings]


@pytest.fixture
def copy(beaconed: Path, tmp_path: Path) -> Path:
    """A draw of two phases to be damaged."""
    return shutil.copytree(beaconed, tmp_path / "copy")


def edit(path: Path, **fields: object) -> None:
    path.write_bytes(canonical_bytes({**json.loads(path.read_bytes()), **fields}))


def test_a_draw_by_the_rules_verifies(beaconed: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    engine = LargeEngine(tmp_path, threads=1, memory_mib=256)
    done = verify(beaconed, engine=engine, tell=steps.append)
    assert done.passed and done.findings == ()
    assert [each.phase for each in done.phases] == [1, 2]
    assert [each.manifest_hash for each in done.phases] == [
        file_hash(beaconed / f"phase-{number}" / MANIFEST) for number in (1, 2)
    ]
    assert steps == [
        f"phase {phase}: {step}"
        for phase in (1, 2)
        for step in ("manifest, seed, strikes", "leaves", "replay")
    ]
    assert done.verdict == done.as_dict()["verdict"] == "holds"
    assert list(tmp_path.iterdir()) == [], "nothing of the replay is left behind"


def test_a_draw_from_the_beacon_verifies_and_a_seed_of_another_round_does_not(
    beaconed: Path, tmp_path: Path
) -> None:
    done = replay(beaconed, tmp_path)
    assert done.passed and any(
        "When the manifest became public is not in these files" in each for each in done.notes
    )
    assert "phase 2: no notice of when its manifest became public" in done.notes
    copy = shutil.copytree(beaconed, tmp_path / "copy")
    for number in (1, 2):
        seed = json.loads((copy / f"phase-{number}" / SEED).read_bytes())
        forged = "a" + seed["signature"][1:]
        edit(copy / f"phase-{number}" / SEED, signature=forged)
    assert named(replay(copy, tmp_path)) == ["phase-1/seed.json", "phase-2/seed.json"]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("strikes.txt", lambda path: path.write_bytes(path.read_bytes() + b"zzz|FRAUD\n")),
        ("strikes.txt", lambda path: takes_back(path)),
        ("leaves.txt", lambda path: path.write_bytes(path.read_bytes() + b"zzz|zzz|1||west\n")),
        (MANIFEST, lambda path: edit(path, winsPerUnit=2)),
        (MANIFEST, lambda path: edit(path, phase=3)),
    ],
)
def test_a_later_phase_is_checked_even_if_the_first_cannot_be_replayed(
    copy: Path, name: str, damage: Callable[[Path], None]
) -> None:
    seed = copy / "phase-1" / SEED
    seed.write_bytes(seed.read_bytes().replace(b'"seed":"', b'"seed":"z'))
    damage(copy / "phase-2" / name)
    edit(copy / "phase-2" / SUMMARY, manifestHash=file_hash(copy / "phase-2" / MANIFEST))
    done = replay(copy, copy)
    assert named(done) == ["phase-1/seed.json", f"phase-2/{name}"] and done.phases == ()
    assert any("was not replayed" in note for note in done.notes)


def takes_back(path: Path) -> None:
    """All strikes, and the manifest says so."""
    path.write_bytes(b"")
    edit(path.with_name(MANIFEST), strikesHash=file_hash(path), strikesRoot=file_hash(path))


def flips(path: Path) -> Iterator[bytes]:
    """The file with one bit flipped, at its ends and at some places between, a low and a high bit."""
    data = path.read_bytes()
    places = sorted({0, len(data) - 1, len(data) // 3, len(data) * 2 // 3}) if data else []
    for number, place in enumerate(places):
        changed = bytearray(data)
        changed[place] ^= 1 << (0, 2, 5, 7)[number % 4]
        yield bytes(changed)


@pytest.mark.parametrize("phase", [1, 2])
@pytest.mark.parametrize("name", ARTEFACTS)
def test_a_flipped_bit_in_any_artefact_of_any_phase_names_the_file(copy: Path, phase: int, name: str) -> None:
    path = copy / f"phase-{phase}" / name
    kept = path.read_bytes()
    for changed in flips(path):
        path.write_bytes(changed)
        done = replay(copy, copy)
        assert not done.passed
        assert f"phase-{phase}/{name}" in named(done), (changed, named(done))
    path.write_bytes(kept)
    assert replay(copy, copy).passed


@pytest.mark.parametrize(
    ("name", "published", "replayed", "expected"),
    [
        ("a.txt", b"a\n", b"a\n", ""),
        ("a.txt", b"a\n", b"b\n", r"line 1: the replay gives 'b\n', found 'a\n'"),
        ("a.txt", b"a\n", b"a\nb\n", r"line 2: the replay gives 'b\n', found no such line"),
        ("a.txt", b"a\n\x1b\xff", b"a\n", r"line 2: the replay gives no such line, found '\x1b\xff'"),
        ("a.json", b'{"a": 1}', b'{"a":1}', "not the canonical bytes"),
        ("a.json", b'{"a":[true]}', b'{"a":[1]}', "a[0]: the replay gives 1, found true"),
        ("a.json", b'{"b":2}', b'{"a":1,"b":2}', "a: the replay gives 1, found nothing"),
        ("a.json", b"[1]", b'{"a":1}', 'document: the replay gives {"a": 1}, found [1]'),
        ("a.json", b"{", b'{"a":1}', "not JSON"),
        ("a.json", b"[" * 100_000, b'{"a":1}', "nested too deep"),
    ],
)
def test_the_first_difference_is_described_in_printable_characters(
    tmp_path: Path, name: str, published: bytes, replayed: bytes, expected: str
) -> None:
    for folder, data in (("published", published), ("replayed", replayed)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(data)
    assert difference(tmp_path / "published" / name, tmp_path / "replayed" / name) == expected


@pytest.mark.parametrize(
    ("name", "field"), [(MANIFEST, "manifestHash"), (MANIFEST, "resultHash"), (SUMMARY, "manifestHash")]
)
def test_a_flipped_bit_in_a_hash_that_links_the_phases_names_the_file(
    copy: Path, name: str, field: str
) -> None:
    path = copy / "phase-2" / name
    data = bytearray(path.read_bytes())
    place = data.index(field.encode()) + len(field) + 3
    # From one hex digit to another: still well-formed.
    data[place] = ord("1") if data[place] != ord("1") else ord("2")
    path.write_bytes(data)
    assert f"phase-2/{name}" in named(replay(copy, copy))


@pytest.mark.parametrize("name", ARTEFACTS)
def test_a_missing_file_is_a_finding(copy: Path, name: str) -> None:
    (copy / "phase-1" / name).unlink()
    done = replay(copy, copy)
    assert f"phase-1/{name}" in named(done)
    assert "is missing" in str(next(each for each in done.findings if each.artefact == f"phase-1/{name}"))


def test_one_damaged_result_does_not_blame_what_follows_from_it(copy: Path) -> None:
    path = copy / "phase-1" / RESULT
    lines = path.read_text().splitlines()
    loser = next(number for number, line in enumerate(lines) if line.endswith("WAITLIST"))
    ref, _, rank, _ = lines[loser].split("|")
    lines[loser] = f"{ref}|east|{rank}|WINNER"
    path.write_text("\n".join(lines) + "\n")
    done = replay(copy, copy)
    assert named(done) == ["phase-1/result.txt"]
    message = done.findings[0].message
    assert f"line {loser + 1}: the replay gives" in message and f"{ref}|east|{rank}|WINNER" in message
    assert [each.phase for each in done.phases] == [1, 2]


def test_a_term_that_may_not_change_between_phases_is_named(copy: Path) -> None:
    for field, value in (("winsPerUnit", 2), ("asOf", "2026-11-26T08:00:00.000Z"), ("phase", 3)):
        path = copy / "phase-2" / MANIFEST
        kept = path.read_bytes()
        edit(path, **{field: value})
        edit(copy / "phase-2" / SUMMARY, manifestHash=file_hash(path))
        finding = next(
            each for each in replay(copy, copy).findings if each.artefact == "phase-2/manifest.json"
        )
        assert field in finding.message
        path.write_bytes(kept)
        edit(copy / "phase-2" / SUMMARY, manifestHash=file_hash(path))
    assert replay(copy, copy).passed


def test_a_forged_draw_is_detected_by_the_published_hashes(beaconed: Path, tmp_path: Path) -> None:
    hashes = [file_hash(beaconed / f"phase-{number}" / MANIFEST) for number in (1, 2)]
    assert replay(beaconed, tmp_path, *hashes).passed
    other = make(tmp_path / "other", entrants(30), [Terms(FIRST, {})])
    assert replay(other, tmp_path).passed
    done = replay(other, tmp_path, *hashes)
    assert "phase-1/manifest.json" in named(done) and hashes[0] in str(done.findings[0])
    assert not any("follow from each other" in note for note in done.notes), "nothing is vouched for"
    assert replay(beaconed, tmp_path, hashes[0]).passed
    for hashes_given, wrong in (((ZEROS,), "phase-1"), ((hashes[0], ZEROS), "phase-2")):
        assert named(replay(beaconed, tmp_path, *hashes_given)) == [f"{wrong}/manifest.json"]
    shutil.copytree(beaconed / "phase-1", tmp_path / "short" / "phase-1")
    assert "2 manifest hashes" in str(replay(tmp_path / "short", tmp_path, *hashes).findings[0])


def test_a_phase_that_is_committed_to_has_no_result_yet_and_perhaps_no_leaves_and_seed(copy: Path) -> None:
    for names in ((RESULT, "cutoffs.json", SUMMARY), ("leaves.txt",), (SEED,)):
        for name in names:
            (copy / "phase-2" / name).unlink()
        done = replay(copy, copy)
        assert done.passed and [each.phase for each in done.phases] == [1]
        assert "phase-2 has no result yet: what it is drawn from was checked" in done.notes
        assert any("covers the draw up to phase 1." in note for note in done.notes)
    (copy / "phase-2" / MANIFEST).unlink()
    done = replay(copy, copy)
    assert done.passed and "phase-2 has no result yet, so it was not verified" in done.notes


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (MANIFEST, lambda path: path.write_bytes(b"{}")),
        (MANIFEST, lambda path: edit(path, phase=3)),
        (MANIFEST, lambda path: edit(path, winsPerUnit=2)),
        (MANIFEST, lambda path: edit(path, previous={"manifestHash": ZEROS, "resultHash": ZEROS})),
        (MANIFEST, lambda path: fewer_seats(path)),
        ("strikes.txt", lambda path: path.unlink()),
        ("strikes.txt", lambda path: takes_back(path)),
        ("strikes.txt", lambda path: strikes_a_stranger(path)),
        ("leaves.txt", lambda path: path.write_bytes(path.read_bytes()[1:])),
        (SEED, lambda path: path.write_bytes(b"{}")),
        ("notice.json", lambda path: path.write_bytes(b"{}")),
    ],
)
def test_what_a_phase_without_a_result_is_drawn_from_is_checked_all_the_same(
    copy: Path, name: str, damage: Callable[[Path], None]
) -> None:
    for output in (RESULT, "cutoffs.json", SUMMARY):
        (copy / "phase-2" / output).unlink()
    damage(copy / "phase-2" / name)
    done = replay(copy, copy)
    assert done.verdict == "fails" and named(done) == [f"phase-2/{name}"]


DIGESTS = tuple(sha256_hex(each) for each in (b"A", b"B"))


@pytest.mark.parametrize(
    ("name", "lines", "wrong"),
    [
        ("codes-1.txt", ("east|2|{}", "east|10|{}", "west|1|{}"), "same code"),
        ("codes-1.txt", ("east|10|{}", "east|2|{}"), "line 2 does not follow the one before"),
        ("codes-1.txt", ("east|1", "east|2|{}"), "line 1 is not market|position|digest"),
        ("codes-1.txt", ("north|1|{}",), "market north is not in the manifest"),
        ("codes-2.txt", ("east|1|{}",), "codes-1.txt is missing before it"),
    ],
)
def test_lists_of_planned_codes_are_read(copy: Path, name: str, lines: tuple[str, ...], wrong: str) -> None:
    made = [line.format(DIGESTS[number % 2]) for number, line in enumerate(lines)]
    (copy / "phase-1" / name).write_text("".join(f"{line}\n" for line in made))
    done = replay(copy, copy)
    assert named(done) == [f"phase-1/{name}"] and wrong in done.findings[0].message


def test_a_code_is_planned_in_one_phase_and_never_changed(copy: Path) -> None:
    def planned(phase: int, digest: str, number: int = 1) -> None:
        (copy / f"phase-{phase}" / f"codes-{number}.txt").write_text(f"east|1|{digest}\n")

    planned(1, DIGESTS[0])
    done = replay(copy, copy)
    assert done.passed and any("lists of planned codes name 1 places" in note for note in done.notes)
    planned(1, DIGESTS[1], 2)
    assert "was changed after it was published" in replay(copy, copy).findings[0].message
    planned(1, DIGESTS[0], 2)
    planned(2, DIGESTS[0])
    [finding] = replay(copy, copy).findings
    assert str(finding).startswith("phase-2/codes-1.txt: the code of east|1 was planned in phase 1 already")


def fewer_seats(path: Path) -> None:
    """A capacity below that of phase 1, which is no valid later phase."""
    markets = json.loads(path.read_bytes())["markets"]
    edit(path, markets=[{**markets[0], "capacity": 1}, *markets[1:]])


def strikes_a_stranger(path: Path) -> None:
    """One who has no leaf, and the manifest says so."""
    path.write_bytes(path.read_bytes() + b"zzz|FRAUD\n")
    root = root_over(path.read_bytes())
    edit(path.with_name(MANIFEST), strikesHash=file_hash(path), strikesRoot=root)


def test_a_phase_with_a_part_of_its_result_and_a_first_one_without_any_are_not_left_out(copy: Path) -> None:
    outputs = (RESULT, "cutoffs.json", SUMMARY)
    for name in outputs[:2]:
        (copy / "phase-2" / name).unlink()
    assert named(replay(copy, copy)) == [f"phase-2/{name}" for name in outputs[:2]]
    shutil.rmtree(copy / "phase-2")
    for name in outputs:
        (copy / "phase-1" / name).unlink()
    assert named(replay(copy, copy)) == [f"phase-1/{name}" for name in outputs]


def test_what_cannot_be_drawn_is_a_finding_and_no_later_phase_is_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(folder: Path, *_rest: object, **_options: object) -> None:
        (folder / RESULT).write_bytes(b"")
        (folder / "cutoffs.json").write_bytes(b"{}")
        (folder / SUMMARY).write_bytes(canonical_bytes({"manifestHash": file_hash(folder / MANIFEST)}))

    monkeypatch.setattr(draws, "compute", nothing)
    leaves = [replace(leaf, preferences=("nowhere",)) for leaf in entrants(3, households=0)]
    folder = make(tmp_path / "draw", leaves, [Terms(FIRST, {}), Terms(MORE, {})])
    done = replay(folder, tmp_path)
    assert named(done) == ["phase-1/leaves.txt"]
    assert done.phases == () and any("phase 2 was not replayed" in note for note in done.notes)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file here that refuses to be read")
def test_a_file_that_cannot_be_read_is_a_usage_error(copy: Path) -> None:
    path = copy / "phase-2" / "leaves.txt"
    path.unlink()
    path.symlink_to("/proc/self/mem")
    with pytest.raises(UsageError, match="cannot be read"):
        replay(copy, copy)


def test_a_draw_without_entries_verifies(tmp_path: Path) -> None:
    make(tmp_path / "empty", [], [Terms(FIRST, {}), Terms(MORE, {})])
    done = replay(tmp_path / "empty", tmp_path)
    assert done.passed and done.count == 0


def test_a_folder_without_a_phase_is_a_usage_error_and_a_missing_one_a_finding(
    beaconed: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        replay(tmp_path / "nowhere", tmp_path)
    with pytest.raises(UsageError, match="no phase-1"):
        replay(tmp_path, tmp_path)
    shutil.copytree(beaconed / "phase-2", tmp_path / "gap" / "phase-2")
    assert named(replay(tmp_path / "gap", tmp_path)) == ["phase-1/manifest.json"]
    shutil.copytree(beaconed / "phase-1", tmp_path / "gap" / "phase-1")
    assert replay(tmp_path / "gap", tmp_path).verdict == "holds"
    (tmp_path / "gap" / "phase-2").rename(tmp_path / "gap" / "phase-3")
    assert named(replay(tmp_path / "gap", tmp_path)) == ["phase-2/manifest.json"]
    said = Annulled(EARLY, CAMPAIGN, None, 1, "a wrong list")
    (tmp_path / "gap" / "phase-3" / "annulled.json").write_bytes(said.to_bytes())
    assert replay(tmp_path / "gap", tmp_path).verdict == "annulled"


EARLY = iso(QUICKNET.due(ROUND) - 599)


def test_a_round_that_was_signed_too_soon_after_the_judgement_is_a_finding(tmp_path: Path) -> None:
    for as_of, passes in (
        (iso(QUICKNET.due(ROUND) - 600), True),
        (EARLY, False),
        ("2026-11-25T08:00:00.000Z", False),
    ):
        folder = make(tmp_path / as_of.replace(":", ""), entrants(9), [Terms(FIRST, {})], as_of=as_of)
        done = replay(folder, tmp_path)
        assert done.passed is passes
        assert done.round_at == done.as_dict()["roundAt"] == "2023-08-23T15:59:24.000Z"
        assert any("2023-08-23T15:59:24.000Z (UTC)" in note for note in done.notes)
        if not passes:
            assert named(done) == ["phase-1/manifest.json"]
            assert "round 1000 is signed at 2023-08-23T15:59:24.000Z (UTC)" in done.findings[0].message


def test_a_unit_with_two_weights_is_a_finding_even_if_all_else_is_consistent(tmp_path: Path) -> None:
    leaves, house_id = entrants(12, households=0), unit_of(UNIT_KEY, CAMPAIGN, "house")
    house = [
        replace(leaf, unit=house_id, weight=weight)
        for leaf, weight in zip(leaves[:3], (1, 1, 5), strict=True)
    ]
    folder = make(tmp_path / "draw", [*house, *leaves[3:]], [Terms(FIRST, {}), Terms(MORE, {})])
    done = replay(folder, tmp_path)
    assert named(done) == ["phase-1/leaves.txt", "phase-2/leaves.txt"]
    assert "one unit, several weights" in done.findings[0].message
    assert f"{leaves[2].ref} has 5" in done.findings[0].message


def test_a_verified_draw_says_that_a_later_phase_may_exist(beaconed: Path, tmp_path: Path) -> None:
    shutil.copytree(beaconed / "phase-1", tmp_path / "short" / "phase-1")
    for folder, last in ((tmp_path / "short", 1), (beaconed, 2)):
        done = replay(folder, tmp_path)
        assert done.passed
        assert any(f"up to phase {last}. A later phase may exist" in note for note in done.notes)


@pytest.fixture
def beside(beaconed: Path, tmp_path: Path) -> Path:
    """A draw from the beacon with all the files beside its artefacts."""
    return publish_beside(shutil.copytree(beaconed, tmp_path / "beside"))


def test_statements_beside_the_artefacts_are_in_the_notes(beside: Path, tmp_path: Path) -> None:
    done = replay(beside, tmp_path)
    assert done.passed
    first, second = (each.as_dict() for each in done.phases)
    assert first["publishedAt"] == iso(QUICKNET.due(ROUND) - 700)
    assert (first["replaced"], first["accepted"], second["reason"]) == (1, ["late_commit"], "more seats")
    notes = "\n".join(done.notes)
    for said in (
        "the manifest was public at 2023-08-23T15:47:44.000Z, 700 s before",
        "took the place of 1 earlier one(s)",
        "with round 900",
        "late_commit, because: the store was down",
        "reason: more seats",
    ):
        assert said in notes
    assert "asked" not in notes and "annulled" not in notes


def test_the_notes_mention_a_late_publication_and_a_second_commitment(beaconed: Path, tmp_path: Path) -> None:
    late = publish_beside(shutil.copytree(beaconed, tmp_path / "late"), lead_seconds=30)
    notes = "\n".join(replay(late, tmp_path).notes)
    assert "public only at 2023-08-23T15:58:54.000Z, 30 s before that moment" in notes
    assert "ask for another one" not in notes
    for lead, said in (
        (600, "was public at 2023-08-23T15:49:24.000Z, 600 s before: it was fixed"),
        (599, "public only at 2023-08-23T15:49:25.000Z, 599 s before that moment"),
        (-30, "public only at 2023-08-23T15:59:54.000Z, 30 s after that moment"),
    ):
        assert said in "\n".join(replay(publish_beside(late, lead_seconds=lead), tmp_path).notes)
    path = late / "phase-1" / "replaced-1.json"
    edit(path, replacedAt=iso(QUICKNET.due(ROUND - 100)))
    done = replay(late, tmp_path)
    assert done.passed and "1 of them had a round that was signed when it was replaced" in "\n".join(
        done.notes
    )


def test_the_notes_mention_the_annulment_of_a_draw(beside: Path, tmp_path: Path) -> None:
    manifest = beside / "phase-2" / MANIFEST
    annulled = Annulled(EARLY, draws.CAMPAIGN, file_hash(manifest), 2, "the wrong list")
    (beside / "phase-2" / "annulled.json").write_bytes(annulled.to_bytes())
    done = replay(beside, tmp_path)
    assert done.passed and done.as_dict()["annulled"] == {"annulledAt": EARLY, "reason": "the wrong list"}
    assert any("annulled this draw" in note for note in done.notes)
    for name in (RESULT, "cutoffs.json", SUMMARY):
        (beside / "phase-2" / name).unlink()
    done = replay(beside, tmp_path)
    assert done.passed and len(done.phases) == 1 and done.annulled is not None, "a phase without a result too"


OTHER_COUNT = object()


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("phase-1/notice.json", {"capacities": {"east": 5, "west": 5}}),
        ("phase-1/notice.json", {"strikes": 7}),
        ("phase-2/notice.json", {"phase": 1}),
        ("phase-2/notice.json", {"asOf": EARLY}),
        ("phase-1/notice.json", {"extra": 1}),
        ("phase-1/replaced-1.json", {"manifest": "{}"}),
        ("phase-1/replaced-1.json", {"manifest": OTHER_COUNT}),
        ("phase-1/accepted.json", None),
        ("phase-2/annulled.json", {"manifestHash": "0" * 64}),
    ],
)
def test_a_file_beside_the_artefacts_that_contradicts_them_is_named(
    beside: Path, tmp_path: Path, name: str, changed: dict[str, object] | None
) -> None:
    if name.endswith("annulled.json"):
        annulled = Annulled(
            EARLY, draws.CAMPAIGN, file_hash(beside / "phase-2" / MANIFEST), 2, "a wrong list"
        )
        (beside / name).write_bytes(annulled.to_bytes())
        assert replay(beside, tmp_path).passed
    if changed is None:
        (beside / name).write_bytes(b"[ ]")
    elif changed.get("manifest") is OTHER_COUNT:
        before = json.loads(json.loads((beside / name).read_bytes())["manifest"])
        edit(beside / name, manifest=canonical_bytes({**before, "count": 37}).decode())
    else:
        edit(beside / name, **changed)
    assert named(replay(beside, tmp_path)) == [name]


def test_a_replaced_manifest_in_a_later_phase_or_with_a_gap_before_it_is_named(
    beside: Path, tmp_path: Path
) -> None:
    (beside / "phase-1" / "replaced-1.json").rename(beside / "phase-1" / "replaced-2.json")
    assert named(replay(beside, tmp_path)) == ["phase-1/replaced-2.json"]
    (beside / "phase-1" / "replaced-2.json").rename(beside / "phase-2" / "replaced-1.json")
    assert named(replay(beside, tmp_path)) == ["phase-2/replaced-1.json"]


def test_a_file_that_is_not_the_recorded_one_is_named(beside: Path, tmp_path: Path) -> None:
    engine = LargeEngine(tmp_path / "scratch", threads=1, memory_mib=256)
    names = ("phase-1/notice.json", "phase-1/leaves.txt", "phase-2/accepted.json")
    files = {name: file_hash(beside / name) for name in names[:2]} | {names[2]: "0" * 64}
    assert verify(beside, engine=engine, files=files).passed, "what is not there yet is no finding"
    for name in names[:2]:
        done = verify(beside, engine=engine, files={**files, name: "0" * 64})
        assert named(done) == [name] and "recorded was 000" in done.findings[0].message


SMALL = entrants(7, households=2)
FILES = (*ARTEFACTS, "notice.json", "accepted.json", "replaced-1.json", "annulled.json")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
GARBAGE = st.one_of(
    st.binary(max_size=60),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.sampled_from(
        [b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5_000, b"\xff\n", b"\x00", b"a|a|1||east\n" * 2, b"\r\n"]
    ),
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make(tmp_path_factory.mktemp("small") / "draw", SMALL, [Terms(FIRST, {})])
    return publish_beside(folder)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(FILES), GARBAGE)
def test_any_bytes_in_any_file_are_a_finding_and_no_crash(
    small: Path, tmp_path: Path, name: str, data: bytes
) -> None:
    path = small / "phase-1" / name
    kept = path.read_bytes() if path.exists() else None
    path.write_bytes(data)
    try:
        done = replay(small, tmp_path)
        assert f"phase-1/{name}" in named(done) or data in (kept, b"[]", b"")
        assert all(text.isprintable() for text in map(str, done.findings))
    finally:
        path.unlink()
        if kept is not None:
            path.write_bytes(kept)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([name for name in FILES if name.endswith(".json")]), st.data())
def test_any_value_in_any_json_file_is_no_crash(
    small: Path, tmp_path: Path, name: str, data: st.DataObject
) -> None:
    path = small / "phase-1" / name
    if not path.exists():
        return
    kept = path.read_bytes()
    document = json.loads(kept)
    place = document[0] if isinstance(document, list) else document
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON | st.sampled_from([2**53 - 1, "9" * 5_000, [{}] * 40_000]))
    try:
        path.write_bytes(canonical_bytes(document))
    except ValueError:
        path.write_text(json.dumps(document))
    try:
        done = replay(small, tmp_path)
        assert all(text.isprintable() for text in map(str, done.findings))
    finally:
        path.write_bytes(kept)


def test_a_folder_or_a_loop_in_place_of_a_file_is_a_finding(copy: Path) -> None:
    for name in ("leaves.txt", "strikes.txt", SUMMARY):
        path = copy / "phase-1" / name
        kept = path.read_bytes()
        path.unlink()
        path.mkdir()
        assert f"phase-1/{name}" in named(replay(copy, copy))
        path.rmdir()
        path.symlink_to(path)
        assert f"phase-1/{name}" in named(replay(copy, copy))
        path.unlink()
        path.write_bytes(kept)
    (copy / "phase-3").write_text("no folder")
    assert replay(copy, copy).passed


def test_a_phase_without_a_published_hash_is_named(copy: Path, tmp_path: Path) -> None:
    first, second = (file_hash(copy / f"phase-{number}" / MANIFEST) for number in (1, 2))
    both = replay(copy, tmp_path, first, second)
    assert any("the manifests have the hashes that were given as published" in note for note in both.notes)
    one = replay(copy, tmp_path, first)
    assert one.passed
    assert any(
        "the manifest of phase 1 has the hash that was given as published; no published hash was given for phase 2"
        in note
        for note in one.notes
    )
    assert not any("the manifests have the hashes that were given" in note for note in one.notes)
