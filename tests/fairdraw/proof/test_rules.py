"""docs/draw-rules.md: its example is a draw, its numbers are ours, and a verifier written from it alone agrees."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fairdraw.large.allocate import LargeEngine
from fairdraw.maths.files import ARTEFACTS, LEAVES, MANIFEST, SEED, STRIKES
from fairdraw.maths.leaves import Leaf, parse_leaf
from fairdraw.maths.manifest import MarketTerms, SeedFile
from fairdraw.maths.rules import entry_key, unit_key
from fairdraw.proof.verify import verify
from fairdraw.terms import LEAD_SECONDS, QUICKNET, QUICKNET_HASH
from regworkers_core.settings import PROJECT_ROOT
from tests.fairdraw.proof.draws import BEACON, Terms, make
from tests.fairdraw.verifier.draws import random_draw

PAGE = PROJECT_ROOT / "docs" / "draw-rules.md"
READER = PROJECT_ROOT / "docs" / "examples" / "verify_draw.pl"
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


def reader(folder: Path, *hashes: str) -> subprocess.CompletedProcess[str]:
    """The verifier in Perl, which was written from the page."""
    found = shutil.which("perl")
    if found is None or subprocess.run([found, "-MDigest::SHA", "-MJSON::PP", "-e1"], check=False).returncode:
        pytest.skip("no Perl with its own modules here")
    command = [found, str(READER), str(folder), *hashes]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def ours(folder: Path, scratch: Path) -> tuple[bool, list[str]]:
    done = verify(folder, engine=LargeEngine(scratch / "scratch", threads=1, memory_mib=256))
    return done.passed, [each.result_hash for each in done.phases]


def test_the_example_of_the_page_is_a_draw_that_verifies(example: Path, tmp_path: Path) -> None:
    assert {each.name for each in (example / "phase-2").iterdir()} == set(ARTEFACTS)
    passed, hashes = ours(example, tmp_path)
    assert passed
    done = reader(example)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall("resultHash ([0-9a-f]{64})", done.stdout) == hashes


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
        f"{LEAD_SECONDS} s after `asOf`",
    ):
        assert shown in text


def agree(numbers: Iterator[int] | range, scratch: Path) -> None:
    for number in numbers:
        folder = random_draw(random.Random(number), scratch / str(number)).folder
        done = reader(folder)
        assert (done.returncode, done.stderr) == (0, ""), (number, done.stdout, done.stderr)
        hashes = re.findall("resultHash ([0-9a-f]{64})", done.stdout)
        assert len(hashes) == len(list(folder.glob("phase-*")))
        shutil.rmtree(folder)


def test_a_verifier_written_from_the_page_agrees_on_draws_of_every_kind(tmp_path: Path) -> None:
    agree(range(6), tmp_path)


@pytest.mark.slow
def test_a_verifier_written_from_the_page_agrees_on_fifty_draws(tmp_path: Path) -> None:
    agree(range(50), tmp_path)


def test_a_verifier_written_from_the_page_refuses_what_verify_refuses(example: Path, tmp_path: Path) -> None:
    for number, (name, old, new) in enumerate(
        (
            ("phase-1/leaves.txt", "ben|home-1|2||east", "ben|home-1|1||east"),
            ("phase-1/leaves.txt", "gina|gina|1|", "gina|gina|01|"),
            ("phase-1/result.txt", "dora||6|WAITLIST", "dora|east|6|WINNER"),
            ("phase-1/cutoffs.json", '"rank":5', '"rank":6'),
            ("phase-2/cutoffs.json", '"cutoff":null', '"cutoff":{}'),
            ("phase-1/summary.json", '"STRUCK":0,', ""),
            ("phase-1/summary.json", '"STRUCK":0', '"STRUCK":"0"'),
            ("phase-1/seed.json", '"round":0', '"round":1'),
            ("phase-1/manifest.json", '"capacity":2', '"capacity":"2"'),
            ("phase-2/manifest.json", '"winsPerUnit":1', '"winsPerUnit":2'),
            ("phase-2/strikes.txt", "hugo|DUPLICATE_ACCOUNT\n", ""),
        )
    ):
        folder = shutil.copytree(example, tmp_path / str(number))
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))
        assert reader(folder).returncode == 1, name
        assert not ours(folder, tmp_path)[0], name
    assert reader(example, "0" * 64).returncode == 1


def test_a_verifier_written_from_the_page_refuses_a_round_that_was_signed_too_soon(tmp_path: Path) -> None:
    leaves = [Leaf("a", "a", 1, (), ("east",))]
    terms = Terms((MarketTerms("east", 1),), {})
    late = make(tmp_path / "late", leaves, [terms], source=BEACON, as_of="2026-11-25T08:00:00.000Z")
    done = reader(late)
    assert done.returncode == 1 and "too soon" in done.stdout
    house = [replace(leaves[0], ref=ref, unit="h", weight=weight) for ref, weight in (("a", 1), ("b", 2))]
    done = reader(make(tmp_path / "house", house, [terms]))
    assert done.returncode == 1 and "two weights" in done.stdout
    assert (late / "phase-1" / MANIFEST).exists()
