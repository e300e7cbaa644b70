"""The tables and the plot of docs/fairness.md that say what the bias audit can see.

The smallest biases are computed, and raised until simulated draws confirm them. Other ones count false alarms. That
takes minutes of all cores: `python -m tools.write_tables power`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

import matplotlib
import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from scipy.stats import binomtest

from regworkers_core.reporting.figures import COLOURS, GRID, figure, titled
from regworkers_core.selection.report.audit import ALPHA
from regworkers_core.settings import PROJECT_ROOT
from tools.power import BIASES, CAUGHT, Bias, Crowd, smallest_caught, stopped

SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
# Draws confirm the factors of these sizes. If none of DRAWS is missed, the 95 % interval is above CAUGHT.
SIMULATED = (1_000, 10_000, 100_000)
DRAWS = 4_000
# What the formula has to give: it has a margin, because small groups are rarer than it says.
COMPUTED = 0.9999
PLOT = PROJECT_ROOT / "docs" / "images" / "audit-power.svg"
# Fair draws by entries, in jobs of some seconds.
FAIR = {1_000: 40_000, 10_000: 20_000, 100_000: 4_000}
_JOB = 2_000
_ALPHAS = (1e-2, 1e-3, ALPHA)

# Two of the lines nearly coincide: dashes show both.
_LINES = ("-", "-", "-", "--", "-", "-")
In = TypeVar("In")
Out = TypeVar("Out")
_crowd = cache(Crowd)


def confirmed(case: tuple[Bias, int]) -> float | None:
    """The smallest factor with two digits of its excess over 1 that is caught; None if none is great enough."""
    bias, entries = case
    computed = smallest_caught(_crowd(entries), bias, COMPUTED)
    if computed is None:
        return None
    step = 10.0 ** (math.floor(math.log10(computed - 1)) - 1)
    steps = math.ceil((computed - 1) / step)
    while entries in SIMULATED and misses(entries, bias, 1 + steps * step):
        steps += 1
    return 1 + steps * step


def misses(entries: int, bias: Bias, factor: float) -> bool:
    """Whether the tests that are made to see a bias let one of DRAWS simulated draws pass."""
    crowd, rng = _crowd(entries), np.random.default_rng((2, entries))
    draws = (crowd.drawn(rng, bias, factor, bias.seen_by) for _ in range(DRAWS))
    return any(all((test.p or 0) >= crowd.threshold for test in each.values()) for each in draws)


def smallest_table() -> str:
    """The smallest bias that is caught. Writes the plot, too."""
    cases = [(bias, entries) for entries in reversed(SIZES) for bias in BIASES]
    found = dict(zip(cases, _parallel(confirmed, cases), strict=True))
    _plot(found)
    rows = []
    for bias in BIASES:
        share = f"{100 * _crowd(100_000).favoured[bias.name].mean():.2g} %"
        tests = f"{', '.join(name for name, _ in bias.seen_by)}: {bias.seen_by[0][1]}"
        rows.append((bias.name, bias.favoured, tests, share, *(_factor(found[bias, size]) for size in SIZES)))
    columns = ("bias", "who is favoured", "tests that see it", "share of fans", *map(_count, SIZES))
    return _table(columns, rows, texts=3)


def false_alarms_table() -> str:
    """How often the audit stops a fair draw, at its own alpha and at greater ones, which are easier to count."""
    jobs = [(entries, job) for entries, draws in FAIR.items() for job in range(draws // _JOB)]
    found = list(zip(jobs, _parallel(_false_alarms, jobs), strict=True))
    rows = []
    for entries, draws in FAIR.items():
        counts = np.sum([counts for (size, _), counts in found if size == entries], axis=0)
        cells = []
        for count in map(int, counts):
            rate, low, high = (10_000 * each for each in (count / draws, *_interval(count, draws)))
            cells.append(f"{rate:.1f} ({low:.1f} to {high:.1f})")
        rows.append((_count(entries), f"{draws:,}", str(counts[-1]), *reversed(cells)))
    levels = [f"in 10,000 at {alpha:g} (95 % interval)" for alpha in reversed(_ALPHAS)]
    return _table(("entries", "fair draws", f"false alarms at {ALPHA:g}", *levels), rows, texts=0)


def _false_alarms(job: tuple[int, int]) -> list[int]:
    entries, number = job
    crowd, rng = _crowd(entries), np.random.default_rng((3, entries, number))
    counts = [0] * len(_ALPHAS)
    for _ in range(_JOB):
        results = crowd.drawn(rng)
        for at, alpha in enumerate(_ALPHAS):
            counts[at] += stopped(results, alpha)
    return counts


def _parallel(work: Callable[[In], Out], cases: Sequence[In]) -> list[Out]:
    with ProcessPoolExecutor() as pool:
        return list(pool.map(work, cases))


def _plot(found: Mapping[tuple[Bias, int], float | None], path: Path = PLOT) -> None:
    with matplotlib.rc_context({"svg.hashsalt": "regworkers", "svg.fonttype": "none"}):
        made, (axis,) = figure(rows=14)
        for bias, colour, line in zip(BIASES, COLOURS, _LINES, strict=True):
            points = [(size, 100 * (each - 1)) for size in SIZES if (each := found[bias, size]) is not None]
            axis.plot(*zip(*points, strict=True), line, color=colour, marker=".", label=bias.name)
        axis.set(xscale="log", yscale="log", xlabel="entries, of which one in ten wins")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"+{value:,.10g} %"))
        axis.grid(axis="x", color=GRID)
        titled(
            axis,
            f"The smallest bias that the audit catches with a probability of {CAUGHT}",
            "additional chance of the favoured",
            along="y",
            columns=3,
        )
        made.savefig(path, format="svg", facecolor="white", metadata={"Date": None})


def _interval(count: int, draws: int) -> tuple[float, float]:
    """Exact, 95 %."""
    found = binomtest(count, draws).proportion_ci()
    return found.low, found.high


def _factor(factor: float | None) -> str:
    if factor is None:
        return "not seen"
    digits = max(0, 1 - math.floor(math.log10(factor - 1) + 1e-9))
    return f"{factor:.{digits}f}"


def _count(entries: int) -> str:
    return f"{entries:,}" if entries < 1_000_000 else f"{entries // 1_000_000} million"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int) -> str:
    """Markdown, with numbers aligned to the right from column `texts` on."""
    marks = ["---"] * texts + ["---:"] * (len(columns) - texts)
    lines = (columns, marks, *rows)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
