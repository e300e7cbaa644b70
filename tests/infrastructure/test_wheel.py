"""The wheels in an empty environment somewhere else, as the image has it: nothing of the repository beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest

from fairdraw.verifier.assemble import has_signatures, verifier_page
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from tests.support.entries import key, put
from tests.support.environment import environment_of

pytestmark = pytest.mark.slow
# As the Makefile's EXTRAS; draws and pages are in tests of their own.
EXTRAS = "draw,reports,production,reviews"
UV = [sys.executable, "-m", "uv"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `venv`, in which only the wheels and their locked dependencies are, and a `home` with settings."""
    folder = tmp_path_factory.mktemp("elsewhere")
    build = [*UV, "build", "--quiet", "--wheel", "--out-dir", folder, "--python", sys.executable]
    for project in (PROJECT_ROOT, PROJECT_ROOT / "fairdraw"):
        subprocess.run([*build, project], check=True)
    (wheel,), (fairdraw,) = folder.glob("regworkers-*.whl"), folder.glob("fairdraw-*.whl")
    subprocess.run([*UV, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
    lock = PROJECT_ROOT / "requirements.lock"
    install = [*UV, "pip", "install", "--quiet", "--python", folder / "venv" / "bin" / "python"]
    subprocess.run([*install, "--constraints", lock, f"{wheel}[{EXTRAS}]", fairdraw], check=True)
    done = in_place(folder, {}, "config", "init")
    assert done.returncode == 0, done.stderr
    return folder


def in_place(place: Path, variables: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **variables,
        "PATH": f"{place / 'venv' / 'bin'}:{os.environ['PATH']}",
        "HOME": str(place / "home"),
    }
    return subprocess.run(
        ["regworkers", *words], env=environment, cwd=place, capture_output=True, text=True, check=False
    )


def run(place: Path, runtime: Runtime, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the installed product, with the image's variables: only TMPDIR may be written to."""
    temporary = place / "tmp"
    temporary.mkdir(exist_ok=True)
    environment = environment_of(runtime) | {
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(temporary),
        "XDG_CACHE_HOME": str(temporary / "cache"),
        "MPLCONFIGDIR": str(temporary / "matplotlib"),
        # Neither index nor advisories: the review says so, and at once.
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }
    before = written(place)
    done = in_place(place, environment, *words)
    assert written(place) == before, "something was written outside of TMPDIR"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def written(place: Path) -> set[Path]:
    return {path for path in place.rglob("*") if place / "tmp" not in path.parents}


def test_doctor_a_drain_and_the_quarterly_review_run_from_the_wheel_alone(
    place: Path, runtime: Runtime
) -> None:
    doctor = run(place, runtime, "doctor", "--format", "json")
    assert doctor.returncode in (0, 1) and orjson.loads(doctor.stdout), doctor.stderr
    put(runtime, key("e1"))
    for drain in ("enqueue", "save"):
        done = run(place, runtime, "drain", drain, "--idle-seconds", "1", "--max-seconds", "30")
        assert done.returncode == 0, done.stderr
    assert runtime.database["entries"].count_documents({"entryId": "e1"}) == 1
    review = run(place, runtime, "review", "quarterly", "--no-drill", "--format", "json")
    assert review.returncode in (0, 1), review.stderr
    sections = {each["name"]: each for each in orjson.loads(review.stdout)["sections"]}
    assert {name: sections[name]["unread"] for name in ("privileges", "dependencies")} == {
        "privileges": None,
        "dependencies": None,
    }
    assert sections["dependencies"]["numbers"]["packages"] > 150


def test_the_wheel_has_the_page_that_checks_receipts_as_it_was_built(place: Path, runtime: Runtime) -> None:
    page = place / "tmp" / "page.html"
    page.parent.mkdir(exist_ok=True)
    page.write_bytes(verifier_page(b"{}"))
    done = run(place, runtime, "draw", "verify-page", str(page), "--format", "json")
    assert done.returncode == 0, done.stderr
    # With signatures after `make verifier`, and without them before.
    assert orjson.loads(done.stdout)["signatures"] is has_signatures()


def test_without_a_repository_settings_are_the_users_and_a_missing_extra_is_named(place: Path) -> None:
    variables = {"CONFIG_ENV": "prod"}
    shown = in_place(place, variables, "config", "show", "--format", "json")
    assert shown.returncode == 0 and orjson.loads(shown.stdout)["resourcePrefix"] == "prod-", shown.stderr
    again = in_place(place, variables, "config", "init")
    assert again.returncode == 2 and f"already {place}/home/.config/regworkers/" in again.stderr
    local = in_place(place, {}, "local", "status")
    assert local.returncode == 2 and local.stderr == (
        "regworkers: psutil is not installed: run `pip install 'regworkers[local]'`\n"
    )
