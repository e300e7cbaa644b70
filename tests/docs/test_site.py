"""The documentation as a site: every page is in it, reads as in the repository, and needs no network."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from regworkers_core.settings import PROJECT_ROOT
from tools.build_site import build, diagram, loaded_from_elsewhere, pages, tree

_BLOCKS = re.compile(r"<(h[1-6]|li|table|tr|pre|img|blockquote)\b")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("site") / "site"
    build(made, diagrams=False)
    return made


def _address(page: Path) -> Path:
    name = page.relative_to(PROJECT_ROOT)
    return name.with_name("index.html") if name.name == "README.md" else name.with_suffix(".html")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(PROJECT_ROOT)))
def test_a_page_has_on_the_site_each_heading_list_table_and_block_of_the_repository(
    site: Path, page: Path
) -> None:
    source = site.parent / "site-source" / "pages" / page.relative_to(PROJECT_ROOT)
    wanted = MarkdownIt("commonmark").enable("table").render(source.read_text(encoding="utf-8"))
    text = (site / _address(page)).read_text(encoding="utf-8")
    shown = text[text.index("<article") : text.index("</article>")]
    assert Counter(_BLOCKS.findall(shown)) == Counter(_BLOCKS.findall(wanted))


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    assert list(loaded_from_elsewhere(site)) == []
    page = site / "index.html"
    page.write_text(page.read_text(encoding="utf-8") + '<script src="https://unpkg.com/x"></script>', "utf-8")
    assert list(loaded_from_elsewhere(site)) == ["index.html: https://unpkg.com/x"]


def test_the_search_knows_every_page(site: Path) -> None:
    known = (site / "search.json").read_text(encoding="utf-8")
    assert [page for page in pages() if f'"{_address(page)}' not in known] == []


def test_every_page_has_one_place_in_the_tree() -> None:
    places = Counter(re.findall(r"[\w./-]+\.md", str(tree(PROJECT_ROOT))))
    assert places == Counter(str(page.relative_to(PROJECT_ROOT)) for page in pages())


def test_a_link_to_code_becomes_its_path(site: Path) -> None:
    text = (site / "docs" / "architecture.html").read_text(encoding="utf-8")
    assert "<code>regworkers_core/replication/saver.py</code>" in text
    assert 'href="../regworkers_core' not in text


def test_a_link_that_leads_nowhere_ends_the_build_and_is_named(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    for folder in ("docs/images", "docs/examples", "docs/site", "benchmarks/plots", "deploy"):
        (root / folder).mkdir(parents=True)
    for name in ("README.md", "deploy/README.md", "benchmarks/README.md"):
        (root / name).write_text("# A page\n", encoding="utf-8")
    shutil.copy2(PROJECT_ROOT / "docs/site/iframe-worker.js", root / "docs/site")
    (root / "docs/index.md").write_text(
        "# Documentation\n\n## Start\n\n- [Other](other.md)\n", encoding="utf-8"
    )
    (root / "docs/other.md").write_text("# Other\n\nSee [that](#nothing-here).\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"docs/other\.md"):
        build(tmp_path / "site", root)
    (root / "docs/other.md").write_text("# Other\n\nSee [that](index.md#start).\n", encoding="utf-8")
    build(tmp_path / "site", root)
    assert "Other" in (tmp_path / "site" / "docs" / "other.html").read_text(encoding="utf-8")


def test_a_diagram_becomes_a_picture_with_its_words() -> None:
    text = diagram("flowchart LR\n  table --> replica\n").read_text(encoding="utf-8")
    assert text.startswith("<svg") and "replica" in text and "<script" not in text
