"""The tables and the plot of docs/fairness.md that say what the bias audit can see.

The smallest biases are computed. Simulated draws check them, and count false alarms; that takes some minutes of all
cores: `python -m tools.write_tables power`.
"""

from __future__ import annotations

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
SIMULATED = (1_000, 100_000)
DRAWS = 2_000
PLOT = PROJECT_ROOT / "docs" / "images" / "audit-power.svg"
# Fair draws by entries, in jobs of some seconds to a minute.
FAIR = {1_000: 200_000, 10_000: 60_000, 100_000: 20_000}
_JOB = 5_000
_ALPHAS = (1e-2, 1e-3, ALPHA)
# Search the excess between these multiples of the computed one, in steps of one per cent at the end.
_LOW, _HIGH, _HALVINGS = 0.75, 1.5, 6
_MOST_MISSED = round(DRAWS * (1 - CAUGHT))

# Line and mark of each bias.
_STYLES = (("-", "o"), ("-", "s"), ("-", "^"), ("--", "D"), ("-", "v"))
In = TypeVar("In")
Out = TypeVar("Out")
_crowd = cache(Crowd)


@cache
def _smallest(bias: Bias, entries: int) -> float | None:
    return smallest_caught(_crowd(entries), bias)


def smallest_table() -> str:
    """The smallest bias that is caught, computed."""
    rows = []
    for bias in BIASES:
        crowd = _crowd(SIMULATED[-1])
        share = f"{100 * crowd.favoured[bias.name].mean():.2g} %"
        tests = f"{', '.join(name for name, _ in bias.seen_by)}: {bias.seen_by[0][1]}"
        factors = (_factor(_smallest(bias, entries)) for entries in SIZES)
        rows.append((bias.name, bias.favoured, tests, share, *factors))
    columns = ("bias", "who is favoured", "tests that see it", "share of fans", *map(_count, SIZES))
    return _table(columns, rows, texts=3)


def missed(entries: int, bias: Bias, factor: float, most: int = DRAWS) -> int:
    """In how many simulated draws with a bias the audit does not stop the draw; ends early beyond `most`. The lots are
    the same for every factor.
    """
    crowd, rng = _crowd(entries), np.random.default_rng((2, entries))
    count = 0
    for _ in range(DRAWS):
        count += not stopped(crowd.drawn(rng, bias, factor))
        if count > most:
            break
    return count


def smallest_simulated(entries: int, bias: Bias, computed: float) -> float:
    """The factor from which the share CAUGHT of simulated draws is stopped, to one per cent of its excess over 1."""
    low, high = _LOW, _HIGH
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        if missed(entries, bias, 1 + (computed - 1) * middle, _MOST_MISSED) <= _MOST_MISSED:
            high = middle
        else:
            low = middle
    return 1 + (computed - 1) * high


def simulated_table() -> str:
    """What simulated draws say about the computed factors. Writes the plot, too."""
    cases = [
        (entries, bias, factor)
        for bias in BIASES
        for entries in SIMULATED
        if (factor := _smallest(bias, entries)) is not None
    ]
    found = _parallel(_check, cases)
    rows = []
    for (entries, bias, factor), (caught, smallest) in zip(cases, found, strict=True):
        low, high = _interval(caught, DRAWS)
        share = f"{caught:,} ({100 * low:.2f} to {100 * high:.2f} %)"
        rows.append((bias.name, _count(entries), _factor(factor), share, _factor(smallest)))
    _plot(
        {
            (entries, bias.name): smallest
            for (entries, bias, _), (_, smallest) in zip(cases, found, strict=True)
        }
    )
    columns = (
        "bias",
        "entries",
        "computed",
        f"caught of {DRAWS:,} (95 % interval)",
        "smallest by simulation",
    )
    return _table(columns, rows, texts=1)


def _check(case: tuple[int, Bias, float]) -> tuple[int, float]:
    return DRAWS - missed(*case), smallest_simulated(*case)


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


def _plot(simulated: Mapping[tuple[int, str], float], path: Path = PLOT) -> None:
    with matplotlib.rc_context({"svg.hashsalt": "regworkers", "svg.fonttype": "none"}):
        made, (axis,) = figure(rows=14)
        # Two of the lines nearly coincide: dashes and open marks show both.
        for bias, colour, (line, mark) in zip(BIASES, COLOURS, _STYLES, strict=False):
            points = [(size, factor) for size in SIZES if (factor := _smallest(bias, size)) is not None]
            dots = [(size, factor) for (size, name), factor in simulated.items() if name == bias.name]
            for style, found in ((line, points), (mark, dots)):
                sizes, factors = zip(*found, strict=True)
                label = bias.name if style is line else f"{bias.name}, simulated"
                excess = [100 * (factor - 1) for factor in factors]
                axis.plot(sizes, excess, style, color=colour, mfc="none", ms=9, mew=1.8, label=label)
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
            columns=len(BIASES),
        )
        made.savefig(path, format="svg", facecolor="white", metadata={"Date": None})


def _interval(count: int, draws: int) -> tuple[float, float]:
    """Exact, 95 %."""
    found = binomtest(count, draws).proportion_ci()
    return found.low, found.high


def _factor(factor: float | None) -> str:
    if factor is None:
        return "not seen"
    digits = max(0, 1 - int(np.floor(np.log10(factor - 1))))
    return f"{factor:.{digits}f}"


def _count(entries: int) -> str:
    return f"{entries:,}" if entries < 1_000_000 else f"{entries // 1_000_000} million"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int) -> str:
    """Markdown, with numbers aligned to the right from column `texts` on."""
    marks = ["---"] * texts + ["---:"] * (len(columns) - texts)
    lines = (columns, marks, *rows)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
