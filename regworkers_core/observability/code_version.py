"""Which code runs here, whatever it was installed from."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PRODUCT = Path(__file__).parents[1]
_DIGITS = 12


@cache
def code_version() -> str:
    """`<installed version>+<hash of the sources>`: a working copy changes with every edit, an image with every build
    from other sources. Read once, in some 20 ms.
    """
    digest = hashlib.sha256()
    for path in sorted(_PRODUCT.rglob("*.py")):
        digest.update(path.relative_to(_PRODUCT).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    try:
        installed = version("regworkers")
    except PackageNotFoundError:
        installed = "0"
    return f"{installed}+{digest.hexdigest()[:_DIGITS]}"
