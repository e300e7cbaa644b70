"""Reports for a metadata view that renders markdown."""

from __future__ import annotations

import base64

# An event holds some hundred KB without trouble; a plot of ours stays far below.
PLOT_BYTES = 60_000


def image(name: str, png: bytes) -> str:
    """A plot as markdown with the picture in it."""
    return f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})"
