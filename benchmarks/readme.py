"""The conditions of a measurement, and figures between marks of a page."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regworkers_core.settings import PROJECT_ROOT

README = Path(__file__).resolve().parent / "README.md"


# By suites that ran before on the same code.
_WRITTEN = ("figures.jsonl", "README.md", "plots")


def conditions() -> dict[str, Any]:
    """The time, the code and the machine."""
    changed = _git("status", "--porcelain", "--", ".", *(f":!benchmarks/{name}" for name in _WRITTEN))
    return {
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": _git("rev-parse", "--short=8", "HEAD") + ("+" if changed else ""),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        # The load of other programs in the minute before.
        "loadBefore": round(os.getloadavg()[0], 2),
    }


def _git(*arguments: str) -> str:
    """Empty outside of a repository."""
    answer = subprocess.run(["git", *arguments], cwd=PROJECT_ROOT, capture_output=True, text=True)
    return answer.stdout.strip()


def described(where: dict[str, Any]) -> str:
    """The conditions as a sentence."""
    return (
        f"{where['at']}, commit {where['commit']}, {where['cores']} cores, Python {where['python']},"
        f" load {where['loadBefore']} before the start."
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown: the first column to the left, the others to the right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(text: str, begin: str, end: str, page: Path = README) -> None:
    """Put the figures between two markers of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def say(line: str) -> None:
    """Print progress to stderr."""
    print(line, file=sys.stderr, flush=True)
