"""Builds the page that checks receipts, with the curves that signatures need: `build/verifier/`.

Two builds in two folders must give the same bytes. The page's SHA-256 is written into the docs, or with `--check`
compared with theirs. `--trust FILE` makes the page of a host or a newspaper, too: `verify-trusted.html` has their file
of trusted keys inside, so that a receipt can hold there. Needs Node, and npm's registry or its cache; exit code 1 says
why not.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from fairdraw.errors import DrawError
from fairdraw.log.trust import Trust
from fairdraw.verifier.assemble import MAX_BYTES, module, page_hash, verifier_hash, verifier_page

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "verifier"
FOLDER = ROOT / "build" / "verifier"
NAMES = ("curves.js", "curves.js.gz", "page.js.gz")
PAGES = (ROOT / "CHANGELOG.md", ROOT / "docs" / "fairness.md")
STATED = re.compile(r"(?<=<!-- sha256 of the page -->`)[0-9a-f]{64}(?=`)")


def build(folder: Path) -> dict[str, bytes]:
    """The files of one build in an empty `folder`, by name. Raises SystemExit if npm or the bundler fails."""
    for each in SOURCE.iterdir():
        if each.is_file():
            shutil.copy2(each, folder)
    (folder / "page.js").write_text(module("page.js"), encoding="utf-8")
    # No package may run a script of its own while it is installed.
    _run(folder, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    _run(folder, "node", "build.mjs")
    return {name: (folder / name).read_bytes() for name in NAMES}


def _run(folder: Path, *words: str) -> None:
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SystemExit(f"make verifier: {words[0]} is missing: install Node 20 or newer with npm") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[:8]
        raise SystemExit(f"make verifier: `{' '.join(words)}` failed\n" + "\n".join(said))


def trusted(path: Path) -> bytes:
    """The bytes of a trust file. Raises SystemExit for one that cannot be read, or that no reader would take."""
    try:
        data = path.read_bytes()
        Trust.parse(data)
    except OSError as error:
        why = error.strerror
    except DrawError as error:
        why = f"{error.message} ({error.artefact})"
    else:
        return data
    raise SystemExit(
        f"make verifier: TRUST={path}: {why}: give a trust file or a policy, as docs/log.md has them, or leave TRUST"
        " out for the page alone"
    )


def write_hash(digest: str, *, check: bool) -> None:
    """Write the page's SHA-256 where the docs state it. Raises SystemExit for a page that does not, or with `check`
    states another one.
    """
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        stated = STATED.search(text)
        if stated is None or (check and stated[0] != digest):
            raise SystemExit(
                f"make verifier: {page.name} states {stated and stated[0]}, the page has {digest}"
            )
        page.write_text(STATED.sub(digest, text), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the docs state another hash")
    parser.add_argument("--trust", type=Path, help="also make the page with this file of trusted keys inside")
    given = parser.parse_args(arguments)
    trust = None if given.trust is None else trusted(given.trust)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory(prefix="another place ") as two:
        made, again = build(Path(one)), build(Path(two))
    if made != again:
        raise SystemExit(
            "make verifier: two builds differ: " + ", ".join(n for n in NAMES if made[n] != again[n])
        )
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, data in made.items():
        (FOLDER / name).write_bytes(data)
    pages = {"verify.html": verifier_page()}
    write_hash(verifier_hash(), check=given.check)
    if trust is not None:
        pages["verify-trusted.html"] = verifier_page(trust=trust)
    for name, page in pages.items():
        (FOLDER / name).write_bytes(page)
        size = f"{len(page):,} bytes of at most {MAX_BYTES:,}"
        sys.stdout.write(f"build/verifier/{name}: {size}, SHA-256 {page_hash(page)}\n")
    return max(map(len, pages.values())) > MAX_BYTES


if __name__ == "__main__":
    sys.exit(main())
