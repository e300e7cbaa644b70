"""What a command writes is for the one who runs it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from regworkers_core.adapters.files import Reject, RejectsFile, open_private, private_folder, write_private
from regworkers_core.eligibility.invites.lists import RejectedLine


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True, params=[0o000, 0o022])
def lenient_umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_a_new_file_is_closed_to_others(tmp_path: Path) -> None:
    write_private(tmp_path / "new", "some text")
    assert mode(tmp_path / "new") == 0o600 and (tmp_path / "new").read_text() == "some text"


def test_a_file_that_exists_is_emptied_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_text("longer than the new one")
    path.chmod(0o644)
    write_private(path, b"short")
    assert mode(path) == 0o600 and path.read_bytes() == b"short"
    with open_private(path, append=True) as file:
        file.write(b" and more")
    assert path.read_bytes() == b"short and more"


def test_a_pipe_or_device_is_written_to_unchanged(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o644)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    before = mode(pipe)
    write_private(pipe, "through")
    assert os.read(reader, 100) == b"through" and mode(pipe) == before
    os.close(reader)


def test_a_file_that_cannot_be_written_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        write_private(tmp_path / "nowhere" / "file", b"")


def test_new_folders_are_private_and_existing_ones_unchanged(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(0o755)
    before = mode(tmp_path / "open")
    private_folder(tmp_path / "open" / "a" / "b")
    private_folder(tmp_path / "open" / "a" / "b")
    modes = [mode(tmp_path / "open" / name) for name in ("", "a", "a/b")]
    assert modes == [before, 0o700, 0o700]


def test_lists_of_rejects_are_private(tmp_path: Path) -> None:
    path = tmp_path / "invites.csv.rejects.csv"
    with RejectsFile(path) as rejects:
        rejects.add(Reject(2, RejectedLine.EMPTY, "x"))
    assert mode(path) == 0o600 and path.read_text().startswith("line,reason,found\n2,")
