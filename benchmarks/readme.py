"""The conditions of a measurement, and writing its figures into the README."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parent / "README.md"


def conditions() -> dict[str, Any]:
    """The time and the machine."""
    return {
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        # The load of other programs in the minute before.
        "loadBefore": round(os.getloadavg()[0], 2),
    }


def described(where: dict[str, Any]) -> str:
    """The conditions as a sentence."""
    return (
        f"{where['at']}, {where['cores']} cores, Python {where['python']}, load {where['loadBefore']} before the"
        " start."
    )


def write(text: str, begin: str, end: str, page: Path = README) -> None:
    """Put the figures between two markers of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def say(line: str) -> None:
    """Print progress to stderr."""
    print(line, file=sys.stderr, flush=True)
