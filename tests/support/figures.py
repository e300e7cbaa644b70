"""Figures in tests: whether one can be read (no label over another one, none twice on one axis, nothing outside), and
blank pictures for tests that do not look at them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations, pairwise
from math import radians, sin
from typing import IO, Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from regworkers_core.reporting import figures

_BLANK = {
    "png": bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
        "0000000c49444154789c63f8ffff3f0005fe02fe0def46b80000000049454e44ae426082"
    ),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
}
# Bounding boxes may share a line of pixels.
_TOUCHING = 1.0


def leave_blank() -> None:
    """From here on every picture of this process is empty: rendering takes a third of the CPU time of a small draw, and
    decides nothing. The figures are made all the same.
    """
    figures._Figure.savefig = _blank  # type: ignore[method-assign,assignment]


def _blank(_made: Figure, to: IO[bytes], *, format: str, **_options: Any) -> None:
    to.write(_BLANK[format])


@contextmanager
def rendered() -> Iterator[None]:
    """Pictures are real ones inside."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures._Figure, "savefig", Figure.savefig)
        yield


@pytest.fixture
def pictures() -> Iterator[None]:
    with rendered():
        yield


def unreadable(made: Figure) -> list[str]:
    """What is wrong with it, in words; empty when nothing is."""
    made.draw_without_rendering()
    found: list[str] = []
    boxes: list[tuple[str, Bbox]] = [("the legend", each.get_window_extent()) for each in made.legends]
    for axis in made.axes:
        found += _ticks("x", [each for each in axis.get_xticklabels() if _shown(axis, each, "x")])
        found += _ticks("y", [each for each in axis.get_yticklabels() if _shown(axis, each, "y")])
        boxes += [(f"{each.get_text()!r}", each.get_window_extent()) for each in _texts(axis)]
    for (one, box), (other, next_box) in combinations(boxes, 2):
        if _overlap(box, next_box):
            found.append(f"{one} lies over {other}")
    frame = made.bbox
    found += [
        f"{name} lies outside"
        for name, box in boxes
        if box.x0 < frame.x0 - 1 or box.x1 > frame.x1 + 1 or box.y0 < frame.y0 - 1 or box.y1 > frame.y1 + 1
    ]
    return found


def _texts(axis: Axes) -> Iterator[Text]:
    """Titles, axis labels, and texts beside the bars."""
    titles = (axis.title, axis._left_title, axis.xaxis.label, axis.yaxis.label)  # type: ignore[attr-defined]
    yield from (each for each in (*titles, *axis.texts) if each.get_text())
    for name, each in (("x", axis.get_xticklabels()), ("y", axis.get_yticklabels())):
        yield from (label for label in each if _shown(axis, label, name) and not label.get_rotation())


def _shown(axis: Axes, label: Text, name: str) -> bool:
    place = label.get_position()[0 if name == "x" else 1]
    low, high = sorted(axis.get_xlim() if name == "x" else axis.get_ylim())
    return bool(label.get_text()) and label.get_visible() and low <= place <= high


def _ticks(name: str, labels: list[Text]) -> Iterator[str]:
    texts = [each.get_text() for each in labels]
    if len(set(texts)) < len(texts):
        yield f"{name} axis: a label occurs twice in {texts}"
    for one, other in pairwise(labels):
        turned = one.get_rotation()
        if turned:
            # Parallel lines of text: what lies between them has to be a line high.
            between = abs(one.get_window_extent().x1 - other.get_window_extent().x1) * sin(radians(turned))
            if between < one.get_fontsize() / 72 * 100:
                yield f"{name} axis: {one.get_text()!r} lies over {other.get_text()!r}"


def _overlap(one: Bbox, other: Bbox) -> bool:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return width > _TOUCHING and height > _TOUCHING
