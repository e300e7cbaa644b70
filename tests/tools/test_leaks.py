"""The search for planted values in files."""

from __future__ import annotations

from pathlib import Path

from tools.demo.leaks import in_files


def test_a_file_that_is_removed_during_the_search_is_skipped(tmp_path: Path) -> None:
    for name in ("a", "b-shm", "c"):
        (tmp_path / name).write_text(name)
    places = in_files(tmp_path)
    assert next(places) == ("file a", b"a")
    (tmp_path / "b-shm").unlink()
    assert list(places) == [("file c", b"c")]
