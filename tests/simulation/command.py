"""`python -m tests.simulation --plays 2000 --seed 1`, or `make simulate`.

Exit code 0 if every play held and everything was reached, 1 if not, 2 for a usage error. One integer is one play: a
failure is repeated with its seed, and is printed with the shortest schedule that was found for it.

`--lag` measures instead how long entries take to the replica (`lag`): exit code 1 if one was lost.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.environment import leave_instances

if TYPE_CHECKING:
    from tests.simulation.lag import Scenario

# What must be reached by a run of this many plays.
COUNTED_FROM = 2000
_CHUNK = 20


def main() -> int:
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets of texts must be that of every other run.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    leave_instances()
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description="Play the product's drains."
    )
    parser.add_argument("--plays", type=int, default=500, help="how many, each with the next seed")
    parser.add_argument("--seed", type=int, default=1, help="that of the first play")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tell", action="store_true", help="print what happens in a play")
    parser.add_argument("--plan", type=Path, help="repeat a shortened play from its file")
    parser.add_argument("--shrink-seconds", type=float, default=60.0)
    parser.add_argument("--most-failures", type=int, default=5, help="stop after this number")
    parser.add_argument("--lag", action="store_true", help="print lags, in virtual time within AWS's limits")
    parser.add_argument(
        "--shards", type=int, nargs="+", default=[1, 40, 400], help="of the stream, with --lag"
    )
    parser.add_argument("--results", type=Path, help="write the numbers as JSON")
    given = parser.parse_args()
    if given.lag:
        return _lag(given)
    return _Run(given).run()


class _Run:
    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.reached: Counter[str] = Counter()
        self.failed: list[tuple[int, list[str]]] = []
        self.plays = self.calls = 0
        self.virtual_seconds = 0.0

    def run(self) -> int:
        given = self.given
        if given.plan is not None or given.tell:
            return self._tell()
        began, seeds = time.monotonic(), range(given.seed, given.seed + given.plays)
        chunks = [seeds[start : start + _CHUNK] for start in range(0, len(seeds), _CHUNK)]
        with multiprocessing.get_context("fork").Pool(given.processes, _begin) as pool:
            for chunk in pool.imap_unordered(_play_some, chunks):
                for seed, broken, reached, calls, elapsed in chunk:
                    self.plays += 1
                    self.calls += calls
                    self.virtual_seconds += elapsed
                    self.reached.update(reached)
                    if broken:
                        self.failed.append((seed, broken))
                        print(f"seed {seed}: {broken[0]}", file=sys.stderr)
                if len(self.failed) >= given.most_failures:
                    break
        seconds = time.monotonic() - began
        return self._report(seconds)

    def _report(self, seconds: float) -> int:
        from tests.simulation import coverage

        missed = coverage.missed(self.reached) if self.plays >= COUNTED_FROM else []
        numbers = {
            "plays": self.plays,
            "firstSeed": self.given.seed,
            "failed": [seed for seed, _ in self.failed],
            "missed": missed,
            "seconds": round(seconds, 1),
            "cpuSeconds": round(sum(map(_cpu_seconds, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))), 1),
            "playsPerHour": round(self.plays / seconds * 3600),
            "processes": self.given.processes,
            "virtualHours": round(self.virtual_seconds / 3600, 1),
            "calls": self.calls,
            "reached": dict(sorted(self.reached.items())),
        }
        if self.given.results is not None:
            self.given.results.write_text(json.dumps(numbers, indent=1) + "\n")
        for name, number in sorted(self.reached.items()):
            print(f"{number:>10}  {name}")
        print(
            f"{self.plays} plays from seed {self.given.seed} in {seconds:.0f} s ({numbers['playsPerHour']} an hour), "
            f"{numbers['cpuSeconds']} s of CPU, {self.virtual_seconds / 3600:.0f} virtual hours, {self.calls} calls: "
            f"{len(self.failed)} failed"
        )
        for name in missed:
            print(f"never reached: {name}")
        if self.failed:
            self._shorten(*min(self.failed))
        return 1 if self.failed or missed else 0

    def _shorten(self, seed: int, broken: list[str]) -> None:
        from tests.simulation.plan import plan
        from tests.simulation.play import play
        from tests.simulation.shrink import shrink

        _begin()
        print(f"\nseed {seed}:\n  " + "\n  ".join(broken[:5]))
        first = play(plan(seed))
        if not first.broken:
            print("  it did not fail again: not everything of this play comes from its seed")
            return
        short = shrink(first, play, seconds=self.given.shrink_seconds)
        path = Path(f"simulation-{seed}.json")
        path.write_text(short.plan.as_json() + "\n")
        print(
            f"\nThe shortest schedule that was found ({short.plan.cut} parts left out, in {path}):\n{short.plan}"
        )
        print("  " + "\n  ".join(short.broken[:5]))
        print(f"\nRepeat it: python -m tests.simulation --seed {seed} --tell, or --plan {path}")

    def _tell(self) -> int:
        from tests.simulation.plan import Plan, plan
        from tests.simulation.play import play

        _begin()
        chosen = (
            plan(self.given.seed) if self.given.plan is None else Plan.of_json(self.given.plan.read_text())
        )
        outcome = play(chosen, verbose=True)
        print("\n".join(outcome.story))
        for text in outcome.broken:
            print(f"BROKEN: {text}")
        return 1 if outcome.broken else 0


def _lag(given: argparse.Namespace) -> int:
    from tests.simulation.lag import SCENARIOS

    work = [(scenario, shards, given.seed) for scenario in SCENARIOS for shards in given.shards]
    with multiprocessing.get_context("fork").Pool(given.processes, _begin) as pool:
        found = pool.starmap(_measure, work, chunksize=1)
    if given.results is not None:
        given.results.write_text(json.dumps(found, indent=1) + "\n")
    columns = ("scenario", "shards", "entries", "p50", "p95", "p99", "worst", "lost")
    print("| " + " | ".join(columns) + " |")
    print("|---" + "|---:" * (len(columns) - 1) + "|")
    for each in found:
        cells = (each[name] for name in columns)
        print("| " + " | ".join(f"{cell:,}" if type(cell) is int else str(cell) for cell in cells) + " |")
    return int(any(each["lost"] for each in found))


def _measure(scenario: Scenario, shards: int, seed: int) -> dict[str, Any]:
    from tests.simulation.lag import Lag

    return Lag(scenario, shards, seed).run().as_dict()


def _cpu_seconds(whose: int) -> float:
    used = resource.getrusage(whose)
    return used.ru_utime + used.ru_stime


def _begin() -> None:
    # Pytest's workers ignore SIGTERM, and so do their children: a pool could not end its processes.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    import logging

    import duckdb
    import structlog

    from tests.simulation import world
    from tests.support.figures import leave_blank

    leave_blank()
    duckdb.connect = world.SharedDuckDB  # type: ignore[assignment]
    if Path("/dev/shm").is_dir():
        # Files of DuckDB that live for a moment.
        tempfile.tempdir = "/dev/shm"
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), cache_logger_on_first_use=False
    )


def _play_some(seeds: range) -> list[tuple[int, list[str], Counter[str], int, float]]:
    from tests.simulation.plan import plan
    from tests.simulation.play import play

    return [
        (seed, outcome.broken, outcome.reached, outcome.calls, outcome.elapsed)
        for seed in seeds
        for outcome in [play(plan(seed))]
    ]
