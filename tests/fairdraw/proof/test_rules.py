"""docs/draw-rules.md: its example is a draw, its numbers are ours, and a verifier written from it alone agrees."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from fairdraw.bls import public_key, sign
from fairdraw.errors import DrawError
from fairdraw.large.allocate import LargeEngine
from fairdraw.log.trust import Trust
from fairdraw.maths.beside import AcceptedFinding, Annulled, NoticeFile, ReplacedManifest, accepted_bytes
from fairdraw.maths.files import (
    ARTEFACTS,
    LEAVES,
    MANIFEST,
    RESULT,
    SEED,
    STRIKES,
    canonical_bytes,
    file_hash,
    sha256_hex,
)
from fairdraw.maths.leaves import Leaf, parse_leaf, unit_of
from fairdraw.maths.manifest import Manifest, ManifestSeedSource, MarketTerms, SeedFile
from fairdraw.maths.merkle import root_over
from fairdraw.maths.opened import Opened
from fairdraw.maths.plain import PlainEngine
from fairdraw.maths.rules import entry_key, unit_key
from fairdraw.proof.beacon import DOMAIN, round_message
from fairdraw.proof.verify import Verification, verify
from fairdraw.terms import CHAIN_FILE, LEAD_SECONDS, QUICKNET, QUICKNET_HASH, Chain, iso
from regworkers_core.settings import PROJECT_ROOT
from tests.fairdraw.proof.draws import CAMPAIGN, ROUND, SIGNATURE, UNIT_KEY, Terms, make
from tests.fairdraw.verifier.draws import random_draw
from tests.fairdraw.verifier.node import perl

PAGE = PROJECT_ROOT / "docs" / "draw-rules.md"
_FILE = re.compile(r"^`(phase-\d)/([a-z.]+)`\n\n```text\n(.*?)```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the page shows."""
    root = tmp_path_factory.mktemp("example")
    for phase, name, text in _FILE.findall(PAGE.read_text("utf-8")):
        (root / phase).mkdir(exist_ok=True)
        (root / phase / name).write_text(text[:-1] if name.endswith(".json") else text)
    (root / "phase-1" / STRIKES).write_bytes(b"")
    for name in (LEAVES, SEED):
        shutil.copy(root / "phase-1" / name, root / "phase-2" / name)
    return root


def ours(folder: Path, lead: int | None = None) -> Verification:
    leads = {} if lead is None else {OWN_CHAIN.hash: lead}
    return verify(folder, engine=PlainEngine(folder.parent / "scratch"), trust=Trust(leads))


def test_the_example_of_the_page_is_a_draw_that_verifies(example: Path, tmp_path: Path) -> None:
    assert {each.name for each in (example / "phase-2").iterdir()} == set(ARTEFACTS)
    for engine in (PlainEngine(tmp_path), LargeEngine(tmp_path, threads=1, memory_mib=256)):
        found = verify(example, engine=engine)
        assert (found.verdict, found.findings) == ("holds", ())
    done = perl(example)
    assert (done.code, done.verdict) == (0, "holds")
    assert "not checked: the signature and the key of the beacon\n" in done.said
    hashes = re.findall("resultHash ([0-9a-f]{64})", done.said)
    assert hashes == [each.result_hash for each in found.phases]


def test_the_table_of_the_example_has_the_keys_of_its_entries(example: Path) -> None:
    seed = SeedFile.parse((example / "phase-1" / SEED).read_bytes()).seed
    ranks = {
        line.split("|")[0]: line.split("|")[2] or "–"
        for line in (example / "phase-1" / "result.txt").read_text().splitlines()
    }
    leaves = [parse_leaf(line) for line in (example / "phase-1" / LEAVES).read_text().splitlines()]
    text = PAGE.read_text("utf-8")
    for leaf in leaves:
        key = unit_key(seed, "demo", leaf.unit, leaf.weight)
        row = (
            ranks[leaf.ref],
            leaf.ref,
            key[:8],
            entry_key(seed, leaf.ref)[:8],
            ", ".join(leaf.segments),
            ", ".join(leaf.preferences),
        )
        assert "| " + " | ".join(row).replace("|  |", "| |") + " |\n" in text


def test_the_constants_of_the_page_are_those_of_the_product() -> None:
    text = PAGE.read_text("utf-8")
    key = QUICKNET.public_key
    for shown in (
        QUICKNET_HASH,
        f"{key[:96]}\n{key[96:]}",
        QUICKNET.group_hash,
        f"{QUICKNET.genesis} + {QUICKNET.period} (*r* - 1)",
        f"the lead is {LEAD_SECONDS} s",
    ):
        assert shown in text


def agree(numbers: Iterator[int] | range, scratch: Path) -> None:
    for number in numbers:
        folder = random_draw(random.Random(number), scratch / str(number)).folder
        done = perl(folder)
        found = ours(folder)
        assert (done.code == 0, done.verdict) == (found.is_fine, found.verdict), (number, done.said)
        hashes = re.findall("resultHash ([0-9a-f]{64})", done.said)
        assert len(hashes) == len(list(folder.glob("phase-*")))
        shutil.rmtree(folder)


def test_a_verifier_written_from_the_page_agrees_on_draws_of_every_kind(tmp_path: Path) -> None:
    agree(range(6), tmp_path)


@pytest.mark.slow
def test_a_verifier_written_from_the_page_agrees_on_fifty_draws(tmp_path: Path) -> None:
    agree(range(50), tmp_path)


Forgery = tuple[str, bytes, bytes]
# Refused also where every hash and every result follows.
CHANGES: tuple[Forgery, ...] = (
    ("phase-2/manifest.json", b'"winsPerUnit":1', b'"winsPerUnit":2'),
    ("phase-2/manifest.json", b'"waitlistSize":2', b'"waitlistSize":null'),
    ("phase-2/manifest.json", b'"capacity":2', b'"capacity":1'),
    ("phase-2/manifest.json", b'"seats":2', b'"seats":3'),
    ("phase-2/manifest.json", b'"seats":1,"segment":"local"', b'"seats":3,"segment":"local"'),
    ("phase-2/manifest.json", b'"seats":1,"segment":"local"', b'"seats":1,"segment":"loyal"'),
    ("phase-2/strikes.txt", b"finn|", b"emil|"),
)
FORGERIES: tuple[Forgery, ...] = (
    *CHANGES,
    ("phase-1/leaves.txt", b"|2||east", b"|1||east"),
    ("phase-1/leaves.txt", b"gina|gina|1|", b"gina|gina|01|"),
    ("phase-1/leaves.txt", b"gina|gina|1|", b"gina|home|1|"),
    ("phase-1/result.txt", b"dora||6|WAITLIST", b"dora|east|6|WINNER"),
    ("phase-1/cutoffs.json", b'"rank":5', b'"rank":6'),
    ("phase-2/cutoffs.json", b'"cutoff":null', b'"cutoff":{}'),
    ("phase-1/summary.json", b'"STRUCK":0,', b""),
    ("phase-1/summary.json", b'"STRUCK":0', b'"STRUCK":"0"'),
    ("phase-1/summary.json", b'"resultRoot":"f', b'"resultRoot":"e'),
    ("phase-1/seed.json", b'"round":1000', b'"round":1001'),
    ("phase-1/seed.json", b'"kind":"drand",', b'"kind":"drand","kind":"drand",'),
    ("phase-1/manifest.json", b'"capacity":2', b'"capacity":"2"'),
    ("phase-1/manifest.json", b'"vf2"', b'"vf1"'),
    ("phase-1/manifest.json", b'"registrations":null', b'"registrations":{}'),
    ("phase-2/manifest.json", b'"strikesRoot":"0', b'"strikesRoot":"1'),
    ("phase-2/strikes.txt", b"hugo|DUPLICATE_ACCOUNT\n", b""),
    ("phase-2/strikes.txt", b"hugo|DUPLICATE_ACCOUNT\n", b"hugo|DUPLICATE_ACCOUNT"),
)


def follow(folder: Path) -> None:
    """Let hashes and outputs follow from the inputs, so that only the rules can tell what was forged."""
    before, first = None, Manifest.parse((folder / "phase-1" / MANIFEST).read_bytes())
    seed = SeedFile.of(first.hash, first.seed_source, SIGNATURE)
    for phase in sorted(folder.glob("phase-*")):
        strikes = (phase / STRIKES).read_bytes()
        document = json.loads((phase / MANIFEST).read_bytes())
        document |= {"strikesHash": sha256_hex(strikes), "strikesRoot": root_over(strikes)}
        if before is not None:
            names = {"manifestHash": MANIFEST, "resultHash": RESULT}
            document["previous"] = {key: file_hash(before / name) for key, name in names.items()}
        (phase / MANIFEST).write_bytes(canonical_bytes(document))
        (phase / SEED).write_bytes(seed.to_bytes())
        with suppress(DrawError):
            PlainEngine(folder).compute(phase, before, phase)
        before = phase


@pytest.mark.parametrize("consistent", [False, True])
def test_a_verifier_written_from_the_page_refuses_what_verify_refuses(
    example: Path, tmp_path: Path, consistent: bool
) -> None:
    for number, (name, old, new) in enumerate(CHANGES if consistent else FORGERIES):
        folder = shutil.copytree(example, tmp_path / str(number))
        data = (folder / name).read_bytes()
        assert data.count(old), name
        (folder / name).write_bytes(data.replace(old, new, 1))
        if consistent:
            follow(folder)
        done, found = perl(folder), ours(folder)
        assert (done.code, done.verdict) == (1, "fails"), (name, new, done.said)
        assert found.verdict == "fails", (name, new)
    assert perl(example).verdict == "holds"
    assert perl(example, published=("0" * 64,)).code == 1


ANNULMENT = Annulled("2023-08-23T16:00:00.000Z", "demo", None, 1, "a wrong list")


def test_all_that_is_beside_the_artefacts_is_judged_alike(example: Path, tmp_path: Path) -> None:
    manifests = [Manifest.parse((example / f"phase-{number}" / MANIFEST).read_bytes()) for number in (1, 2)]
    first, second = manifests
    at = "2023-08-23T15:40:00.000Z"
    notice = NoticeFile.of(second, strikes=2, committed_at=at, published_at=at, reason="\x7f")
    old = replace(first, seed_source=replace(first.seed_source, round=900))
    replaced = ReplacedManifest(at, old.to_bytes().decode(), None, at)
    named = replace(ANNULMENT, manifest_hash=second.hash, phase=2)
    terms = tuple(replace(market, capacity=1, reserves=()) for market in first.markets)
    record = Opened(
        campaign_id="demo",
        caseless=True,
        chain=QUICKNET_HASH,
        closes_at="2023-08-23T15:32:00.000Z",
        code_key=None,
        eligibility={"leastAge": 18},
        event_id=None,
        issuer_keys=(),
        markets=terms,
        name="Demo",
        opens_at="2023-08-23T15:00:00.000Z",
        registration=False,
        unit_key_hash=sha256_hex(bytes(range(32))),
        waitlist_size=2,
        wins_per_unit=1,
    )
    amended = record.amending(record, "a larger hall")
    good: dict[str, bytes] = {
        "phase-2/notice.json": notice.to_bytes(),
        "phase-1/replaced-1.json": replaced.to_bytes(),
        "phase-1/accepted.json": accepted_bytes([AcceptedFinding(at, "late_commit", "\u00e9")]),
        "opened.json": record.to_bytes(),
        "amended-1.json": amended.to_bytes(),
        "anything.json": b"{",
        "phase-1/codes-1.txt": f"east|9|{'a' * 64}\neast|10|{'b' * 64}\nwest|1|{'c' * 64}\n".encode(),
    }
    cases: list[tuple[str, dict[str, bytes]]] = [("holds", good)]
    cases += [
        ("fails", {**good, name: data})
        for name, data in (
            ("phase-2/notice.json", replace(notice, capacities={"east": 3}).to_bytes()),
            ("phase-2/notice.json", replace(notice, strikes=1).to_bytes()),
            ("phase-2/notice.json", b"{}"),
            ("phase-2/notice.json", notice.to_bytes().replace(b"\x7f", b"\\u007f")),
            ("phase-1/replaced-1.json", replace(replaced, manifest=first.to_bytes().decode()).to_bytes()),
            ("phase-1/replaced-1.json", b"{"),
            ("phase-1/replaced-3.json", replaced.to_bytes()),
            ("phase-2/replaced-1.json", replaced.to_bytes()),
            ("phase-1/accepted.json", b"[{}]"),
            ("phase-2/annulled.json", b"{"),
            ("phase-2/annulled.json", canonical_bytes({**named.as_document(), "reason": " "})),
            ("amended-3.json", amended.to_bytes()),
            ("amended-1.json", record.to_bytes()),
            ("amended-1.json", replace(amended, campaign_id="other").to_bytes()),
            ("amended-1.json", replace(amended, registration=True).to_bytes()),
            ("opened.json", replace(record, markets=terms[1:]).to_bytes()),
            ("chain.json", OWN_CHAIN.to_bytes()),
            ("phase-1/codes-1.txt", good["phase-1/codes-1.txt"][:-1]),
            ("phase-1/codes-1.txt", good["phase-1/codes-1.txt"].replace(b"|9|", b"|11|")),
            ("phase-1/codes-1.txt", good["phase-1/codes-1.txt"].replace(b"c" * 64, b"b" * 64)),
            ("phase-1/codes-1.txt", good["phase-1/codes-1.txt"].replace(b"west", b"worst")),
            ("phase-1/codes-2.txt", good["phase-1/codes-1.txt"].replace(b"b" * 64, b"d" * 64)),
            ("phase-1/codes-3.txt", good["phase-1/codes-1.txt"]),
            ("phase-2/codes-1.txt", good["phase-1/codes-1.txt"]),
        )
    ]
    cases += [
        ("annulled", {"phase-2/annulled.json": named.to_bytes()}),
        ("annulled", {"phase-2/annulled.json": replace(named, reason=" \x1c.").to_bytes()}),
        ("annulled", {"phase-2/annulled.json": replace(named, phase=1).to_bytes()}),
        ("annulled", {"phase-1/annulled.json": replace(named, phase=1, manifest_hash=first.hash).to_bytes()}),
        ("annulled", {"phase-1/annulled.json": ANNULMENT.to_bytes(), "phase-2/result.txt": b""}),
    ]
    for number, (verdict, files) in enumerate(cases):
        folder = shutil.copytree(example, tmp_path / str(number))
        for name, data in files.items():
            (folder / name).write_bytes(data)
        done, found = perl(folder), ours(folder)
        assert (done.verdict, found.verdict) == (verdict, verdict), (files, done.said, found.findings)
        assert done.code == (not found.passed), (files, done.said, found.findings)
        if verdict == "annulled":
            assert done.said.startswith("ANNULLED by the operator")


def test_a_phase_without_a_result_is_drawn_from_what_it_was_committed_to(
    example: Path, tmp_path: Path
) -> None:
    def change(old: bytes, new: bytes, name: str = MANIFEST) -> Callable[[Path], object]:
        return lambda phase: (phase / name).write_bytes((phase / name).read_bytes().replace(old, new))

    cases: tuple[tuple[str, Callable[[Path], object]], ...] = (
        ("holds", lambda _: None),
        ("holds", lambda phase: [(phase / name).unlink() for name in ("leaves.txt", SEED)]),
        ("holds", lambda phase: (phase / MANIFEST).unlink()),
        ("fails", change(b'"capacity":3', b'"capacity":1')),
        ("fails", change(b'"winsPerUnit":1', b'"winsPerUnit":2')),
        ("fails", change(b'"resultHash":"6', b'"resultHash":"7')),
        ("fails", change(b"{", b"[")),
        ("fails", change(b"iris", b"ines", "leaves.txt")),
        ("fails", change(b"finn|UNCLAIMED\n", b"", STRIKES)),
        ("fails", lambda phase: (phase / STRIKES).unlink()),
    )
    for number, (verdict, forge) in enumerate(cases):
        folder = shutil.copytree(example, tmp_path / str(number))
        for name in (RESULT, "cutoffs.json", "summary.json"):
            (folder / "phase-2" / name).unlink()
        forge(folder / "phase-2")
        done, found = perl(folder), ours(folder)
        assert (done.verdict, found.verdict) == (verdict, verdict), (number, done.said, found.findings)
        assert "phase 2 has no result yet" in done.said or verdict == "fails"


def test_an_annulment_is_enough_without_a_result(example: Path, tmp_path: Path) -> None:
    first = Manifest.parse((example / "phase-1" / MANIFEST).read_bytes())
    named = replace(ANNULMENT, manifest_hash=first.hash)
    for number, (passed, annulled, with_manifest) in enumerate(
        (
            (True, ANNULMENT, False),
            (True, named, True),
            (False, ANNULMENT, True),
            (False, replace(ANNULMENT, phase=2), False),
        )
    ):
        folder = tmp_path / str(number)
        (folder / "phase-1").mkdir(parents=True)
        (folder / "phase-1" / "annulled.json").write_bytes(annulled.to_bytes())
        if with_manifest:
            (folder / "phase-1" / MANIFEST).write_bytes(first.to_bytes())
        done, found = perl(folder), ours(folder)
        assert (done.verdict, found.verdict) == ("annulled", "annulled")
        assert (done.code == 0) is found.passed is passed, (number, done.said, found.findings)


LOCAL_SECRET = bytes(31) + b"\x07"
OWN_CHAIN = Chain(public_key(LOCAL_SECRET), "ab" * 32, "local", QUICKNET.due(ROUND) - 1_000, 1)


def test_a_chain_of_its_own_holds_by_the_lead_that_the_reader_gives(tmp_path: Path) -> None:
    source = ManifestSeedSource(OWN_CHAIN.hash, 1_001)
    folder = make(
        tmp_path / "draw",
        [Leaf("a", "a", 1, (), ("east",))],
        [Terms((MarketTerms("east", 1),), {})],
        source=source,
        signature=sign(LOCAL_SECRET, round_message(1_001), DOMAIN),
        as_of=iso(QUICKNET.due(ROUND) - 5),
    )
    assert (perl(folder).verdict, ours(folder).verdict) == ("fails", "fails")
    (folder / CHAIN_FILE).write_bytes(OWN_CHAIN.to_bytes())
    for lead, verdict in ((None, "incomplete: lead unknown"), (5, "holds"), (6, "fails")):
        done = perl(folder, *([] if lead is None else ["--lead", str(lead)]))
        found = ours(folder, lead)
        assert (done.verdict, found.verdict) == (verdict, verdict), done.said
        assert (done.code == 0) is found.is_fine is (verdict == "holds")
    for other in (replace(OWN_CHAIN, period=2), replace(OWN_CHAIN, beacon_id="other")):
        (folder / CHAIN_FILE).write_bytes(other.to_bytes())
        assert (perl(folder).verdict, ours(folder).verdict) == ("fails", "fails")
        assert [each.artefact for each in ours(folder).findings] == [CHAIN_FILE]


def test_a_verifier_written_from_the_page_refuses_a_round_that_was_signed_too_soon(tmp_path: Path) -> None:
    leaves = [Leaf("a", "a", 1, (), ("east",))]
    terms = Terms((MarketTerms("east", 1),), {})
    late = make(tmp_path / "late", leaves, [terms], as_of="2026-11-25T08:00:00.000Z")
    done = perl(late)
    assert done.code == 1 and "too soon" in done.said
    home = unit_of(UNIT_KEY, CAMPAIGN, "h")
    house = [replace(leaves[0], ref=ref, unit=home, weight=weight) for ref, weight in (("a", 1), ("b", 2))]
    done = perl(make(tmp_path / "house", house, [terms]))
    assert done.code == 1 and "two weights" in done.said
