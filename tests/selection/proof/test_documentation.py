"""Every command of docs/verify-a-draw.md runs, on the draw whose values it shows, and finds what it should."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from regworkers_core.selection.maths.files import sha256_hex
from regworkers_core.selection.proof.receipt import build_receipt
from regworkers_core.settings import PROJECT_ROOT
from tests.selection.proof.draws import CAMPAIGN, outcomes

DOCUMENT = PROJECT_ROOT / "docs" / "verify-a-draw.md"
# The number of the block that compares with the cut-off: those after it are for other people.
_CUTOFF = 8
_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[str]:
    return _BLOCK.findall(DOCUMENT.read_text(encoding="utf-8"))


def receipt_with_cutoff(folder: Path) -> dict[str, Any]:
    """Of the first winner of phase 1 whose market was full without the reserves."""
    for ref, outcome in outcomes(folder / "phase-1").items():
        receipt = build_receipt(folder, ref)
        phase = receipt["phases"][0]
        market = phase["result"].split("|")[1]
        if outcome == "WINNER" and market == "west":
            return receipt
    raise AssertionError("no winner of west")


def values(folder: Path) -> str:
    """What an entrant copies from the receipt, as the document shows it."""
    receipt = receipt_with_cutoff(folder)
    phase, seed = receipt["phases"][0], json.loads(receipt["seed"])
    manifest, market = json.loads(phase["manifest"]), phase["result"].split("|")[1]
    cutoff = json.loads(phase["cutoffs"])["markets"][market]["open"]
    proof = "\n".join(f"  {each}" for each in receipt["inclusion"]["proof"])
    return "\n".join(
        (
            f"campaign={CAMPAIGN}",
            f"leaf='{receipt['inclusion']['leaf']}'",
            f"index={receipt['inclusion']['index']} count={manifest['count']}",
            f"proof=(\n{proof}\n)",
            f"root={manifest['root']}",
            f"manifest='{phase['manifest']}'",
            f"published={sha256_hex(phase['manifest'].encode())}",
            f"commitment={manifest['seedSource']['commitment']}",
            f"source={seed['kind']} round={seed['round']}",
            f"randomness={seed['randomness']}",
            f"seed={seed['seed']}",
            f"key={receipt['key']}",
            f"entry_key={receipt['entryKey']}",
            f"market={market}",
            f"cutoff_key={cutoff['key']}",
            f"cutoff_entry_key={cutoff['entryKey']}",
            "",
        )
    )


def run(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


EXPECTED = """\
same: the leaf leads to the root
same: manifestHash is the published one
same: count and root are in the manifest
same: the secret is the one that was committed to
same: the commitment is in the manifest
same: the randomness is the hash of the signature
same: the seed
same: the key of the unit
same: the key of the entry
in: west
the sibling comes first
same: manifestHash
same: strikesHash
same: resultHash
same: cutoffsHash
same: the leaves of phase 2
same: the seed of phase 2
sorted, each once
same: root
same: every rank
same: phase 2 follows from phase 1
"""


def test_the_values_of_the_document_are_those_of_the_draw(revealed: Path) -> None:
    assert values(revealed) in blocks()
    limited = next(
        receipt
        for ref, outcome in outcomes(revealed / "phase-1").items()
        if outcome == "HOUSEHOLD_LIMIT" and (receipt := build_receipt(revealed, ref))
    )
    sibling = limited["siblings"][0]["leaf"].split("|")[0]
    assert any(f"limited={limited['ref']}\nsibling={sibling}\n" in block for block in blocks())


def test_every_command_of_the_document_runs_and_agrees(revealed: Path) -> None:
    done = run(revealed, "\n".join(blocks()))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == EXPECTED


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("root", "DIFFERENT: the leaf leads to the root"),
        ("published", "DIFFERENT: manifestHash"),
        ("commitment", "DIFFERENT: the secret"),
        ("seed", "DIFFERENT: the seed"),
        ("key", "DIFFERENT: the key of the unit"),
        ("entry_key", "DIFFERENT: the key of the entry"),
        ("cutoff_key", "not in: west"),
    ],
)
def test_the_commands_notice_a_value_that_is_not_the_draws(revealed: Path, variable: str, said: str) -> None:
    own = values(revealed)
    wrong = re.sub(rf"^{variable}=[0-9a-f]{{64}}$", f"{variable}={'0' * 64}", own, flags=re.MULTILINE)
    wrong = re.sub(rf" {variable}=[0-9a-f]{{64}}$", f" {variable}={'0' * 64}", wrong, flags=re.MULTILINE)
    assert wrong != own
    done = run(revealed, "\n".join(blocks()[: _CUTOFF + 1]).replace(own, wrong))
    assert said in done.stdout, done
