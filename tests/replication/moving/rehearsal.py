"""The whole move, there and back, under load: `python -m tests.replication.moving.rehearsal` adds its report to
`docs/migration.md`.

The old system and the workers share one demand table and one replica, as they do in production. A writer goes on
throughout. At the end of each part the stores are compared entry by entry.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.readme import table as markdown
from benchmarks.readme import write
from regworkers_core.domain.keys import EntryKey
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.table_check import Trait, check_tables
from regworkers_core.replication.backfill import start_backfill
from regworkers_core.replication.cut_over import BACK_SECONDS, cut_over
from regworkers_core.replication.reconcile.classify import Kind
from regworkers_core.replication.reconcile.reconciliation import reconcile
from regworkers_core.replication.shadow import ShadowRows, shadow
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.stack import Stack
from tests.replication.moving.lambdas import Lambdas
from tests.support.drains import replicate_all, run
from tests.support.entries import key, put, remove
from tests.support.environment import leave_instances
from tests.support.runtimes import ADDRESSES, new_runtime, remove_namespace

BEGIN, END = "<!-- report of the rehearsal: begin -->", "<!-- report of the rehearsal: end -->"
# The fleet here is one thread: on a busy machine it is seconds behind.
SETTINGS = {"replication": {"lag_objective_seconds": 4.0}}
SHADOW_SECONDS = 20.0
_WRITES_A_SECOND = 25.0
_BACKLOG = 200
# What says that an entry is not as it should be.
_WRONG = (Trait.MISSING, Trait.STALE, Trait.ORPHANED, Trait.REFUSED, Trait.KEY)


@dataclass
class Writer:
    """Fans who register, change and withdraw, as long as it runs; `live` are the entries that exist."""

    runtime: Runtime
    live: dict[EntryKey, int] = field(default_factory=dict)
    writes: int = 0
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _random: random.Random = field(default_factory=lambda: random.Random(7))

    def write(self) -> None:
        self.writes += 1
        chance = self._random.random()
        entry = self._random.choice(list(self.live)) if self.live else None
        if entry is None or chance < 0.6:
            entry = key(f"fan-{next(self._numbers)}")
            self.live[entry] = 1
            put(self.runtime, entry)
        elif chance < 0.9:
            self.live[entry] += 1
            put(self.runtime, entry, version=self.live[entry], firstName=f"name {self.writes}")
        else:
            del self.live[entry]
            remove(self.runtime, entry)

    @contextmanager
    def load(self) -> Iterator[None]:
        """Writes in a thread while inside."""
        halt = threading.Event()

        def run() -> None:
            while not halt.wait(1 / _WRITES_A_SECOND):
                self.write()

        thread = threading.Thread(target=run, name="writer", daemon=True)
        thread.start()
        try:
            yield
        finally:
            halt.set()
            thread.join()


@dataclass
class Rehearsal:
    """`rows` are steps with their seconds and what they found; `lost` names what was not as it should be."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def step(self, name: str, do: Callable[[], str]) -> None:
        began = time.monotonic()
        found = do()
        self.rows.append((name, f"{time.monotonic() - began:.1f}", found))

    def expect(self, condition: bool, otherwise: str) -> None:
        if not condition:
            self.lost.append(otherwise)


def rehearse(runtime: Runtime) -> Rehearsal:
    """There, back, and there again."""
    done, writer = Rehearsal(), Writer(runtime)
    for _ in range(_BACKLOG):
        writer.write()
    old = Lambdas(runtime)
    old.work()
    with writer.load(), old:
        done.step("old system works, `migrate check`", lambda: _check(runtime, done))
        done.step("`migrate shadow` under load", lambda: _shadow(runtime, done))
    done.step("event source off; `migrate cut-over --apply`", lambda: _cut_over(runtime, done, writer))
    done.step("`enqueue` and `save` catch up, under load", lambda: _workers(runtime, writer))
    done.step("`backfill`, then `reconcile`", lambda: _reconcile(runtime, done, writer))

    done.step("the way back: workers end, tombstones leave", lambda: _leave(runtime))
    with writer.load(), Lambdas(runtime, start=old) as old:
        done.step("event source on, where it stopped, under load", lambda: _old_works(writer))
    old.work()
    done.step("compared entry by entry", lambda: _compare(runtime, done, writer))

    with writer.load(), Lambdas(runtime, start=old):
        done.step("`migrate shadow --afresh` under load", lambda: _shadow(runtime, done, afresh=True))
    done.step("`migrate cut-over --replace --apply`", lambda: _cut_over(runtime, done, writer, replace=True))
    done.step("`enqueue` and `save` catch up, under load", lambda: _workers(runtime, writer))
    done.step("`backfill`, then `reconcile`", lambda: _reconcile(runtime, done, writer))
    return done


def _check(runtime: Runtime, done: Rehearsal) -> str:
    found = check_tables(runtime, per_second=1e6)
    refused = {
        trait for trait in found.counts if trait in (Trait.STREAM, Trait.REFUSED, Trait.KEY, Trait.REF_TWICE)
    }
    done.expect(not refused, f"check found {refused}")
    return f"{found.entries} entries, none refused"


def _shadow(runtime: Runtime, done: Rehearsal, *, afresh: bool = False) -> str:
    shadow(runtime, stop=StopSignal(), max_seconds=SHADOW_SECONDS / 2, afresh=afresh)
    # As if an hour lay between both halves.
    ShadowRows(runtime).keep(runtime.clock() - BACK_SECONDS - 1)
    report, _ = shadow(runtime, stop=StopSignal(), max_seconds=SHADOW_SECONDS / 2)
    done.expect(report.clean, f"the shadow found {dict(report.kinds)} {report.examples}")
    lag = report.as_dict()["oldSystemLagSeconds"]["max"]
    return f"{report.compared} changes, {report.agreement_percent:g} % agree; lag of the old system up to {lag:g} s"


def _cut_over(runtime: Runtime, done: Rehearsal, writer: Writer, *, replace: bool = False) -> str:
    # Nothing reads the stream now, and fans go on.
    for _ in range(30):
        writer.write()
    found = cut_over(runtime, apply=True, replace=replace)
    done.expect(found.applied, f"not applied: {found.obstacles}")
    done.expect(found.start is not None, "no checkpoints of an hour ago")
    return "30 writes that wait; starts at the checkpoints of the shadow's first half"


def _workers(runtime: Runtime, writer: Writer) -> str:
    before = writer.writes
    with writer.load():
        first = replicate_all(runtime)
    second = replicate_all(runtime)
    sent = first[0].counts["sent"] + second[0].counts["sent"]
    same = first[1].counts["unchanged"] + second[1].counts["unchanged"]
    return f"{sent} keys, {same} of them repeats, beside {writer.writes - before} new writes"


def _reconcile(runtime: Runtime, done: Rehearsal, writer: Writer) -> str:
    differ = check_tables(runtime, per_second=1e6)
    wrong = {trait: number for trait, number in differ.counts.items() if trait in _WRONG}
    done.expect(not wrong, f"after the cut-over: {wrong} {differ.examples}")
    done.expect(differ.entries == len(writer.live), "an entry got lost in the demand table")
    # Entries that only the old system saved have no order of ours.
    without = reconcile(runtime).counts[Kind.STALE]
    start_backfill(runtime)
    run(runtime, "save")
    done.expect(reconcile(runtime).clean, "reconcile is not clean after the backfill")
    return f"{len(writer.live)} entries equal; {without} got their order; reconcile is clean"


def _leave(runtime: Runtime) -> str:
    replicate_all(runtime)
    gone = runtime.database["entries"].delete_many(
        {"deletedAt": {"$exists": True}, "erasedAt": {"$exists": False}}
    )
    return f"queues empty, {gone.deleted_count} tombstones deleted"


def _old_works(writer: Writer) -> str:
    before = writer.writes
    threading.Event().wait(SHADOW_SECONDS / 2)
    return f"{writer.writes - before} writes meanwhile"


def _compare(runtime: Runtime, done: Rehearsal, writer: Writer) -> str:
    live = {entry.document_id: version for entry, version in writer.live.items()}
    stored = {
        each["_id"]: each.get("version") for each in runtime.database["entries"].find({}, {"version": 1})
    }
    done.expect(
        stored == live, f"the old system has {len(set(stored.items()) ^ set(live.items()))} other states"
    )
    return f"{len(stored)} of {len(live)} entries in their last version"


def report(done: Rehearsal) -> str:
    result = "Nothing was lost." if not done.lost else f"**Lost: {done.lost}**"
    return f"{result}\n\n{markdown(('step', 'seconds', 'result'), [list(row) for row in done.rows])}"


def main() -> int:
    leave_instances()
    stack = Stack(PROJECT_ROOT, f"rehearsal-{os.getpid()}")
    try:
        state = stack.up()
        os.environ.update({variable: state.address(name) for name, variable in ADDRESSES.items()})
        runtime = new_runtime(**SETTINGS)
        done = rehearse(runtime)
        remove_namespace(runtime)
    finally:
        stack.reset()
    write(report(done), BEGIN, END, PROJECT_ROOT / "docs" / "migration.md")
    print(report(done))
    return 1 if done.lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
