"""Every command of docs/verify-a-draw.md runs, on the draw whose values it shows, and finds what it should."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fairdraw.large.receipts import build_receipt
from fairdraw.maths.files import canonical_bytes, file_hash, sha256_hex
from fairdraw.maths.manifest import MarketTerms
from regworkers_core.settings import PROJECT_ROOT
from tests.fairdraw.proof.draws import CAMPAIGN, Terms, entrants, make, outcomes
from tests.support.terminal import regworkers

DOCUMENT = PROJECT_ROOT / "docs" / "verify-a-draw.md"
_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TEXT = re.compile(r"^```text\n((?:perl|regworkers) .*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[str]:
    return _BLOCK.findall(DOCUMENT.read_text(encoding="utf-8"))


def receipt_with_cutoff(folder: Path) -> dict[str, Any]:
    """Of the first winner of phase 1 whose market was full without the reserves."""
    for ref, outcome in outcomes(folder / "phase-1").items():
        receipt = build_receipt(folder, ref)
        phase = receipt["phases"][0]
        market = phase["result"]["line"].split("|")[1]
        if outcome == "WINNER" and market == "west":
            return receipt
    raise AssertionError("no winner of west")


def values(receipt: dict[str, Any]) -> str:
    """What an entrant copies from the receipt, as the document shows it."""
    phase, seed = receipt["phases"][0], json.loads(receipt["seed"])
    manifest, summary = json.loads(phase["manifest"]), json.loads(phase["summary"])
    proofs = ["\n".join(each["proof"]) for each in (receipt["inclusion"], phase["result"])]
    return "\n".join(
        (
            f"campaign={CAMPAIGN}",
            f"leaf='{receipt['inclusion']['leaf']}'",
            f"index={receipt['inclusion']['index']}",
            f"count={manifest['count']}",
            f"proof='{proofs[0]}'",
            f"root={manifest['root']}",
            f"manifest='{phase['manifest']}'",
            f"published={sha256_hex(phase['manifest'].encode())}",
            f"summary='{phase['summary']}'",
            f"line='{phase['result']['line']}'",
            f"line_proof='{proofs[1]}'",
            f"result_root={summary['resultRoot']}",
            f"chain={manifest['seedSource']['chain']}",
            f"round={seed['round']}",
            f"signature={seed['signature']}",
            f"randomness={seed['randomness']}",
            f"seed={seed['seed']}",
            f"key={receipt['key']}",
            f"entry_key={receipt['entryKey']}",
            f"cutoffs='{phase['cutoffs']}'",
            "",
        )
    )


TWO = (MarketTerms("east", 3), MarketTerms("west", 2))
SHELLS = {
    "bash": ("bash",),
    "bash as a POSIX shell": ("bash", "--posix"),
    "bash as 3.2": ("bash", "-O", "compat32"),
    "zsh": ("zsh", "--no-rcs"),
}


def run(folder: Path, script: str, shell: str = "bash") -> subprocess.CompletedProcess[str]:
    if shutil.which(SHELLS[shell][0]) is None:
        pytest.skip(f"no {SHELLS[shell][0]} on this machine")
    return subprocess.run(
        [*SHELLS[shell], "-eu", "-o", "pipefail", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )


OWN = """\
same: the leaf leads to the root
same: manifestHash is the published one
same: count and root are in the manifest
same: manifestHash and resultRoot are in the summary
same: the line leads to the root of the result
same: the randomness is the hash of the signature
same: chain and round are in the manifest
signed: 2023-08-23T15:59:24Z
same: the seed
same: the key of the unit
same: the key of the entry
in: west
the sibling comes first
"""
FILES = """\
same: manifestHash of phase {n}
same: strikesHash of phase {n}
same: resultHash of phase {n}
same: cutoffsHash of phase {n}
"""
ROOTS = """\
same: strikesRoot of phase {n}
same: resultRoot of phase {n}
"""


def whole(phases: int) -> str:
    """What the commands for the published files say."""
    numbers = range(1, phases + 1)
    files, roots = ("".join(each.format(n=number) for number in numbers) for each in (FILES, ROOTS))
    return f"{files}sorted, each once\nsame: root\n{roots}same: every rank\n"


NEXT = """\
same: the leaves of phase 2
same: the seed of phase 2
same: phase 2 follows from phase-1
"""


def test_the_values_in_the_document_match_the_draw(beaconed: Path) -> None:
    assert values(receipt_with_cutoff(beaconed)) in blocks()
    limited = next(
        receipt
        for ref, outcome in outcomes(beaconed / "phase-1").items()
        if outcome == "HOUSEHOLD_LIMIT" and (receipt := build_receipt(beaconed, ref))
    )
    sibling = limited["siblings"][0]["leaf"].split("|")[0]
    assert any(f"limited={limited['ref']}\nsibling={sibling}\n" in block for block in blocks())


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_of_the_document_runs_and_agrees(beaconed: Path, shell: str) -> None:
    done = run(beaconed, "\n".join(blocks()), shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == OWN + whole(2) + NEXT


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_every_command_of_the_document_runs_on_a_draw_of_one_phase(
    beaconed: Path, tmp_path: Path, shell: str
) -> None:
    shutil.copytree(beaconed / "phase-1", tmp_path / "phase-1")
    done = run(tmp_path, "\n".join(blocks()), shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == OWN + whole(1)
    # And the commands that are programs.
    receipt = tmp_path / "receipt.json"
    receipt.write_bytes(canonical_bytes(receipt_with_cutoff(tmp_path)))
    first = file_hash(tmp_path / "phase-1" / "manifest.json")
    known = {"<folder>": str(tmp_path), "receipt.json": str(receipt)}
    for text in _TEXT.findall(DOCUMENT.read_text(encoding="utf-8")):
        line = re.sub(r"\[.*?\]", "", text).strip()
        line = re.sub(r"<(as published|manifestHash)[^>]*>", first, line)
        for shown, meant in known.items():
            line = line.replace(shown, meant)
        program, *words = line.split()
        if program == "perl":
            assert subprocess.run([program, *words], cwd=PROJECT_ROOT, check=False).returncode == 0, line
        else:
            assert regworkers(None, *words).code == 0, line


def test_the_commands_agree_on_a_draw_without_entries_and_on_one_of_two_winners_a_unit(
    tmp_path: Path,
) -> None:
    helpers = [
        line for block in blocks() for line in block.splitlines() if re.match(r"\w+\(\) \{.*\}$", line)
    ]
    files = blocks()[-4:]
    for name, leaves, wins in (("none", [], 1), ("two", entrants(14, households=5), 2)):
        folder = make(tmp_path / name, leaves, [Terms((), {})] if not leaves else [Terms(TWO, {})], wins=wins)
        done = run(folder, "\n".join(("export LC_ALL=C", *helpers, *files)))
        assert (done.returncode, done.stderr) == (0, ""), name
        assert done.stdout == whole(1)


@pytest.mark.parametrize("market", ["east", "west"])
@pytest.mark.parametrize("outcome", ["WINNER", "WAITLIST"])
def test_the_cut_off_step_reproduces_the_outcome_of_every_entrant(
    beaconed: Path, market: str, outcome: str
) -> None:
    """Open seats, reserves, `null` and zeros."""
    step = next(block for block in blocks() if "takes()" in block)
    split = next(block for block in blocks() if "IFS='|' read" in block).splitlines()
    read = next(line for line in split if line.startswith("IFS"))
    seen = 0
    for ref, found in outcomes(beaconed / "phase-1").items():
        receipt = build_receipt(beaconed, ref)
        won = receipt["phases"][0]["result"]["line"].split("|")[1]
        if found != outcome or (won and won != market) or seen == 3:
            continue
        seen += 1
        script = "\n".join((blocks()[0], values(receipt), read, step))
        assert run(beaconed, script).stdout == f"in: {won or 'no market'}\n"
    assert seen


NONE = f'{{"entryKey":"{"0" * 64}","key":"{"0" * 64}","rank":0}}'


@pytest.mark.parametrize(
    ("cutoffs", "said"),
    [
        ('{"markets":{"west":{"open":null,"reserves":[]}}}', "in: west"),
        (f'{{"markets":{{"west":{{"open":{NONE},"reserves":[]}}}}}}', "in: no market"),
        ('{"markets":{"not-west":{"open":null,"reserves":[]}}}', "in: no market"),
    ],
)
def test_a_cut_off_of_null_is_met_and_one_of_zeros_is_not(beaconed: Path, cutoffs: str, said: str) -> None:
    own = values(receipt_with_cutoff(beaconed))
    script = "\n".join(blocks()).replace(own, re.sub("cutoffs='.*'", f"cutoffs='{cutoffs}'", own))
    assert said in run(beaconed, script).stdout


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("root", "DIFFERENT: the leaf leads to the root"),
        ("published", "DIFFERENT: manifestHash"),
        ("result_root", "DIFFERENT: the line leads"),
        ("randomness", "DIFFERENT: the randomness"),
        ("seed", "DIFFERENT: the seed"),
        ("key", "DIFFERENT: the key of the unit"),
        ("entry_key", "DIFFERENT: the key of the entry"),
    ],
)
def test_the_commands_notice_a_value_that_is_not_the_draws(beaconed: Path, variable: str, said: str) -> None:
    own = values(receipt_with_cutoff(beaconed))
    wrong = re.sub(rf"^{variable}=[0-9a-f]{{64}}$", f"{variable}={'0' * 64}", own, flags=re.MULTILINE)
    assert wrong != own
    done = run(beaconed, "\n".join(blocks()).replace(own, wrong))
    assert said in done.stdout, done


# What bash 3.2 or zsh does not have, or means otherwise: arrays count from 1 in zsh, where a variable is one word.
ELSEWHERE = {
    "an array": r"\w+=\(|\$\{\w+\[|\$\{#\w+\[",
    "a negative index": r"\[-\d",
    "a newer bash": r"mapfile|readarray|declare -[An]|\$\{\w+[,^@]|\|&|&>>|;;?&|\bcoproc\b",
    "a comment, which zsh refuses when it is typed": r"(^|\s)#",
    "a history expansion": r"![^= \n\"']",
    "splitting of a variable": r"for \w+ in \$\w",
    "a name that zsh keeps": r"\b(path|status|argv|pipestatus|words|prompt|fignore|cdpath)=",
}


@pytest.mark.parametrize("what", ELSEWHERE)
def test_no_command_needs_a_newer_bash_or_differs_in_zsh(what: str) -> None:
    for block in blocks():
        assert not re.search(ELSEWHERE[what], block, re.MULTILINE), block
