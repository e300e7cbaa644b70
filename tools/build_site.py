"""Builds the documentation as a site that needs no network when it is read: `make docs` writes it into `build/site/`.

The pages are those of the repository, and the sections of `docs/index.md` are the tree of the site. A link to code
becomes the path of the code, and a Mermaid diagram becomes a picture. A link to a page or heading that does not exist
ends the build with exit code 1. `--archive` also packs the site for a release into `dist/`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from regworkers_core.settings import PROJECT_ROOT

BUILD = PROJECT_ROOT / "build"
SITE = BUILD / "site"
INDEX = "docs/index.md"
_FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
_MERMAID = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s#]+)(#[^)]*)?\)")
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

# What `font` and `polyfills` would load comes from the site itself.
CONFIG: dict[str, Any] = {
    "site_name": "Registration workers",
    "docs_dir": "pages",
    "use_directory_urls": False,
    "theme": {
        "name": "material",
        "font": False,
        "features": [
            "content.code.copy",
            "navigation.indexes",
            "navigation.tabs",
            "navigation.top",
            "search.highlight",
            "toc.follow",
        ],
        "palette": [
            {
                "media": "(prefers-color-scheme: light)",
                "scheme": "default",
                "toggle": {"icon": "lucide/sun", "name": "Switch to dark mode"},
            },
            {
                "media": "(prefers-color-scheme: dark)",
                "scheme": "slate",
                "toggle": {"icon": "lucide/moon", "name": "Switch to light mode"},
            },
        ],
    },
    "plugins": ["search", "offline"],
    "extra": {"polyfills": ["docs/site/iframe-worker.js"], "generator": False},
    "extra_css": ["docs/site/site.css"],
    "markdown_extensions": [
        "tables",
        "pymdownx.superfences",
        "pymdownx.highlight",
        {"toc": {"permalink": True}},
    ],
}


def pages(root: Path = PROJECT_ROOT) -> list[Path]:
    """Every page of the documentation, sorted."""
    folders = (root, root / "benchmarks")
    found = [*(root / "docs").rglob("*.md"), *(each for folder in folders for each in folder.glob("*.md"))]
    return sorted([*found, root / "deploy" / "README.md"])


def tree(root: Path) -> list[dict[str, Any]]:
    """The sections of the index in Zensical's form. A page is listed where it is linked first, and that of a folder
    with all pages of the folder.
    """
    sections: list[dict[str, Any]] = [{"Home": "README.md"}, {"All pages": INDEX}]
    seen = {"README.md", INDEX}
    for section in re.split(r"^## ", (root / INDEX).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        members: list[dict[str, Any]] = []
        for text, target, _ in _LINK.findall(section):
            path = (root / "docs" / target).resolve()
            page = path.relative_to(root).as_posix()
            if page in seen or path.suffix != ".md":
                continue
            seen.add(page)
            title = " ".join(text.split())
            title = title[0].upper() + title[1:]
            rest = sorted(path.parent.glob("*.md")) if path.parent.parent == root / "docs" else []
            inside = [each.relative_to(root).as_posix() for each in rest if each != path]
            seen.update(inside)
            members.append({title: [page, *inside] if inside else page})
        sections.append({section.partition("\n")[0]: members})
    return sections


def build(into: Path, root: Path = PROJECT_ROOT, *, diagrams: bool = True) -> None:
    """Write the site into the folder `into`, and what it is made of beside it. Raises SystemExit that says which links
    lead nowhere.
    """
    work = into.parent / f"{into.name}-source"
    shutil.rmtree(work, ignore_errors=True)
    staged = pages(root)
    for path in staged:
        target = work / "pages" / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_page(path, root, {*staged}, target if diagrams else None), encoding="utf-8")
    for folder in ("images", "examples", "site"):
        shutil.copytree(root / "docs" / folder, work / "pages" / "docs" / folder)
    shutil.copytree(root / "benchmarks" / "plots", work / "pages" / "benchmarks" / "plots")
    config = {**CONFIG, "nav": tree(root)}
    (work / "mkdocs.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    words = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(work / "mkdocs.yml")]
    done = subprocess.run(words, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        said = _COLOUR.sub("", done.stdout + done.stderr).partition("Traceback")[0]
        raise SystemExit(f"the site cannot be built:\n{said}")
    shutil.rmtree(into, ignore_errors=True)
    (work / "site").replace(into)


def _page(path: Path, root: Path, staged: set[Path], target: Path | None) -> str:
    """The text of a page as the site shows it. Its diagrams are written beside `target`, or stay text without one."""
    text = path.read_text(encoding="utf-8")
    if target is not None:
        title = _TITLE.search(text)
        about = f"Diagram: {title[1]}" if title else "Diagram"

        def picture(found: re.Match[str]) -> str:
            file = target.with_name(f"{target.stem}-{hashlib.sha256(found[1].encode()).hexdigest()[:8]}.svg")
            shutil.copy2(diagram(found[1]), file)
            return f"![{about}]({file.name})"

        text = _MERMAID.sub(picture, text)

    def link(found: re.Match[str]) -> str:
        words, to = found[1], (path.parent / found[2]).resolve()
        if "://" in found[2] or to in staged or to.is_relative_to(root / "docs") or not to.exists():
            return found[0]
        code = f"`{to.relative_to(root).as_posix()}`"
        named = words.strip("`") in (to.name, code.strip("`"))
        return code if named else f"{words} ({code})"

    # Every second part is a block of code.
    parts = _FENCE.split(text)
    return "".join(part if number % 2 else _LINK.sub(link, part) for number, part in enumerate(parts))


def diagram(source: str) -> Path:
    """The SVG of a Mermaid diagram, drawn once. Raises RuntimeError if Mermaid cannot read it."""
    path = BUILD / "diagrams" / f"{hashlib.sha256(source.encode()).hexdigest()}.svg"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_name(f"{os.getpid()}.svg")
        # As a process of its own, because its libraries complain when theirs ends.
        words = [sys.executable, "-m", "mermaidx", "--input", "-", "--output", str(made)]
        done = subprocess.run(words, input=source, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        made.replace(path)
    return path


def loaded_from_elsewhere(site: Path) -> Iterator[str]:
    """What a page of the site would load over the network: the page, and the address."""
    loads = re.compile(
        r"<(?:script|img|iframe|link rel=\"?stylesheet)[^>]*?(?:src|href)=\"?(https?:[^\" >]+)"
    )
    for page in sorted(site.rglob("*.html")):
        for address in loads.findall(page.read_text(encoding="utf-8")):
            yield f"{PurePosixPath(page.relative_to(site))}: {address}"


def write_archive(folder: Path) -> Path:
    """The site as one file of a release."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"regworkers-docs-{version('regworkers')}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(SITE, path.name.removesuffix(".tar.gz"))
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", action="store_true", help="pack the site for a release into dist/")
    archive = parser.parse_args().archive
    build(SITE)
    written = [SITE / "index.html", *([write_archive(PROJECT_ROOT / "dist")] if archive else [])]
    sys.stdout.writelines(f"{path.relative_to(PROJECT_ROOT)}\n" for path in written)
