"""What an auditor installs: the wheel in an empty environment, without the operator's software."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fairdraw.large.receipts import build_receipt
from fairdraw.maths.files import canonical_bytes
from regworkers_core.settings import PROJECT_ROOT
from tests.fairdraw.log.test_witness import LOG, NAME
from tests.fairdraw.proof.draws import refs

pytestmark = pytest.mark.slow
MOST_PACKAGES, MOST_BYTES = 12, 60 * 1024 * 1024
UV = [sys.executable, "-m", "uv"]


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what it needs, by the versions of the lock."""
    folder = tmp_path_factory.mktemp("auditor")
    here = ("--quiet", "--python", sys.executable)
    _uv("build", *here, "--wheel", "--out-dir", folder, PROJECT_ROOT / "fairdraw")
    _uv("venv", *here, folder / "venv")
    (wheel,) = folder.glob("*.whl")
    there = ("--quiet", "--python", folder / "venv" / "bin" / "python")
    _uv("pip", "install", *there, "--constraints", PROJECT_ROOT / "requirements.lock", wheel)
    return folder / "venv"


def _uv(*words: object) -> None:
    done = subprocess.run([*UV, *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode and re.search(
        "error sending request|dns error|failed to fetch", done.stderr, re.IGNORECASE
    ):
        pytest.skip("the registry of packages does not answer")
    assert done.returncode == 0, done.stderr


def fairdraw(venv: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [venv / "bin" / "fairdraw", *words]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=venv)


def test_it_is_small(venv: Path) -> None:
    listed = [*UV, "pip", "list", "--quiet", "--format", "json", "--python", str(venv / "bin" / "python")]
    packages = json.loads(subprocess.run(listed, capture_output=True, check=True).stdout)
    assert 1 < len(packages) <= MOST_PACKAGES, [each["name"] for each in packages]
    assert sum(each.stat().st_size for each in venv.rglob("*") if each.is_file()) <= MOST_BYTES


def test_it_replays_a_draw_and_checks_a_receipt_with_a_beacon(
    venv: Path, beaconed: Path, tmp_path: Path
) -> None:
    receipt = tmp_path / "receipt.json"
    receipt.write_bytes(canonical_bytes(build_receipt(beaconed, refs(1)[0])))
    replayed = fairdraw(venv, "verify", beaconed)
    assert replayed.returncode == 0, replayed.stderr
    assert "every byte follows from what was committed to" in replayed.stdout
    checked = fairdraw(venv, "check-receipt", receipt, "--format", "json")
    assert checked.returncode == 1, "nothing vouches for the keys of a receipt without a trust file"
    states = {each["name"]: each["state"] for each in json.loads(checked.stdout)["checks"]}
    assert states["randomness"] == "passed"


def test_it_runs_a_witness(venv: Path, tmp_path: Path) -> None:
    words = ["--folder", tmp_path / "w", "--name", NAME, "--log", LOG.verifier(), "--port", 0]
    command = [str(each) for each in (venv / "bin" / "fairdraw", "witness", *words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"{NAME}+")
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.kill()
