"""The bytecode of the function's package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from shlex import quote

import pytest

from tools import build_lambda

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
# No release of Python.
ELSEWHERE = "3.0"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text("ANSWER = 42\n")
    return tmp_path / "package"


def compiled(package: Path) -> list[str]:
    return [each.name for each in package.rglob("*.pyc")]


def on_the_path(folder: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / f"python{ELSEWHERE}").write_text(program)
    (folder / f"python{ELSEWHERE}").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_the_package_has_bytecode_of_the_functions_python(package: Path) -> None:
    build_lambda._compile(package, HERE)
    assert compiled(package) == [f"module.{sys.implementation.cache_tag}.pyc"]


def test_equal_sources_make_an_equal_archive_whose_bytecode_counts_whenever_files_were_written(
    package: Path, tmp_path: Path
) -> None:
    archives = []
    for name in ("one", "two"):
        copy = Path(shutil.copytree(package, tmp_path / name))
        os.utime(copy / "module.py", (1_000_000, 1_000_000) if name == "one" else None)
        build_lambda._compile(copy, HERE)
        archives.append(build_lambda._zipped(copy, tmp_path / f"{name}.zip")[0].read_bytes())
    assert archives[0] == archives[1]
    (tmp_path / "one" / "module.py").write_text("ANSWER = 'compiled again'\n")
    asked = [sys.executable, "-c", "import module; print(module.ANSWER)"]
    assert subprocess.check_output(asked, cwd=tmp_path / "one", text=True) == "42\n"


def test_the_functions_python_is_taken_from_the_path(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_the_path(tmp_path, f'#!/bin/sh\nexec {quote(sys.executable)} "$@"\n', monkeypatch)
    build_lambda._compile(package, ELSEWHERE)
    assert compiled(package) and not capsys.readouterr().err


@pytest.mark.parametrize("shim", [False, True])
def test_without_the_functions_python_a_line_says_what_is_missing(
    package: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    shim: bool,
) -> None:
    """A version manager has a name on the path for each version that it knows, also of one that is not in use."""
    if shim:
        on_the_path(tmp_path, "#!/bin/sh\necho command not found >&2\nexit 127\n", monkeypatch)
    build_lambda._compile(package, ELSEWHERE)
    (line,) = capfd.readouterr().err.splitlines()
    assert line == f"no python{ELSEWHERE} on the path: the package has no bytecode, so cold starts are slower"
    assert not compiled(package)
