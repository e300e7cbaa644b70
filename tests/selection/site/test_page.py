"""The public page of a draw: what it tells, what it withholds, and that it needs nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from regworkers_core.selection.site.publish import page_from_folder


@pytest.fixture(scope="session")
def site(revealed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    page_from_folder(revealed, out)
    return out


def test_a_folder_has_the_artefacts_and_the_page_beside_them(site: Path) -> None:
    names = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()}
    assert {"page/index.html", "page/draw.json.gz", "page/verifier.html", "phase-2/result.txt"} <= names
