"""One play: writers, drains in processes that die, faults, and then everything must be as the table says.

A play has two parts. In the active one the table changes and things go wrong. Then the faults end, and within the
promised time the stores must agree, the queues must be empty and every number must add up.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import Any
from unittest.mock import patch

from regworkers_core.analytics.publishing import refusal
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.domain.snapshot import BlownFuse
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.residency import STANDBY, WORKING
from regworkers_core.drains.runner import DrainSpec, Life, drain_limits, run_drain
from regworkers_core.engine.defects import code_version, store_fuse
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.dead_letters.model import dead_queues
from regworkers_core.operations.dead_letters.redrive import RedriveOptions, redrive
from regworkers_core.operations.dead_letters.verdict import Assessor
from regworkers_core.operations.on_call import pause_drain, resume_drain
from regworkers_core.replication.backfill import start_backfill
from regworkers_core.replication.reconcile.acceptance import Accept
from regworkers_core.replication.reconcile.classify import Kind
from regworkers_core.replication.reconcile.reconciliation import Comparing, reconcile
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns import amending
from tests.simulation import checks
from tests.simulation.drawing import CAMPAIGN as DRAWN_CAMPAIGN
from tests.simulation.drawing import Drawing
from tests.simulation.faults import ACTS, TROUBLES, Fault
from tests.simulation.passing import Passing
from tests.simulation.plan import Plan
from tests.simulation.platform import CAMPAIGN, Platform
from tests.simulation.registering import Registering
from tests.simulation.scheduler import Process, Stuck, Task
from tests.simulation.specs import SPECS
from tests.simulation.world import World, seeded

# Runs of each drain at a time.
_SLOTS = 2
# From the end of all faults until everything agrees: the visibility time (30 s), then a wait after a failure (30 s),
# an open breaker (15 s), the start of a drain, and each of these again for the flow behind.
PROMISED_SECONDS = 240.0
# Until the round of a draw: eleven minutes, and an hour more if the clock that chose it was wrong.
BEACON_SECONDS = 4300.0
_LOOK_SECONDS = 2.0
# From a fault of one resident until the other one works: of a call that fails within seconds.
TAKEN_OVER_SECONDS = 12.0
# From the end of all faults until one works and one stands by; some end at their time limit meanwhile.
WHOLE_SECONDS = 60.0
_MOST_REPAIRS = 5
# After which an operator lets the source win where the replica is ahead.
ACCEPTED_SECONDS = 120.0
# What a repair leaves as it is.
_NOT_REPAIRED = (Kind.ERASED, Kind.REJECTED, Kind.NOT_YET)


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass
class Outcome:
    """How a play ended. `broken` is empty if everything holds."""

    plan: Plan
    broken: list[str] = field(default_factory=list)
    reached: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    steps: int = 0
    elapsed: float = 0.0
    story: list[str] = field(default_factory=list)


class Play:
    def __init__(self, plan: Plan, *, verbose: bool = False) -> None:
        self.plan = plan
        self.world = World(plan.order, beacon=plan.beacon)
        self.scheduler = self.world.scheduler
        self.platform = Platform(self.world, plan)
        self.outcome = Outcome(plan)
        self.drawing = Drawing(self) if plan.drawing else None
        self.registering: Registering | None = None
        self.passing = Passing(self, DRAWN_CAMPAIGN) if plan.passing else None
        self.reports: list[tuple[str, DrainReport]] = []
        self.stopping = False
        # Entries that were set back to a state that replication refuses: their writer has to correct them.
        self.to_correct: set[str] = set()
        self._verbose = verbose
        # By drain: its living processes, and the clock with which the next one starts.
        self._processes: dict[str, list[Process]] = {}
        self._skew: dict[str, float] = {}
        self._stops: dict[Process, StopSignal] = {}
        # Whether an operator has let the source win after all had settled.
        self._accepted = False
        # Whether the replica was set back, and no operator has repaired it yet.
        self.rewound = False
        # Drains that were paused, or whose fuse blew.
        self._held: set[str] = set()

    def run(self) -> Outcome:
        outcome = self.outcome
        collecting = gc.isenabled()
        gc.disable()
        try:
            # A play is shorter than the time before its close in which no correction is taken, and waits for them.
            with seeded(self.scheduler), patch.object(amending, "_LAST_SECONDS", -inf):
                self.scheduler.run(self._main)
        except (Broken, Stuck) as error:
            outcome.broken.append(str(error))
        except Exception as error:
            outcome.broken.append(f"the play itself failed: {type(error).__name__}: {error}")
            outcome.story.append(checks.traceback_of(error))
        finally:
            if collecting:
                gc.enable()
        for name, error in self.scheduler.raised:
            if name != "main":
                outcome.broken.append(f"{name} raised {type(error).__name__}: {error}")
                outcome.story.append(checks.traceback_of(error))
        outcome.calls, outcome.steps = self.world.calls, self.scheduler.steps
        outcome.elapsed = self.world.elapsed
        outcome.reached.update(self.world.reached)
        return outcome

    def tell(self, line: str) -> None:
        if self._verbose:
            self.outcome.story.append(f"{self.world.elapsed:7.2f} s  {line}")

    def _main(self) -> None:
        world, plan = self.world, self.plan
        self.platform.prepare()
        if self.drawing is not None:
            self.drawing.prepare()
        self.watch = checks.Watch(world, self.tell)
        logging = [CAMPAIGN] * plan.registering + [DRAWN_CAMPAIGN] * plan.drawing
        self.registering = Registering(self, *logging) if logging else None
        specs = {name: spec for name, spec in SPECS.items() if spec.is_in(plan)}
        threads = [
            self.scheduler.start(
                lambda name=name, spec=spec.spec, slot=slot: self._keep_running(name, spec, slot),
                f"keeper of {name}",
            )
            for name, spec in specs.items()
            for slot in range(_SLOTS)
        ]
        self.scheduler.start(self._go_wrong, "nemesis")
        for fault in plan.faults:
            if fault.kind == "rewind":
                self.scheduler.start(partial(self._back_up, fault.at - fault.seconds), "backup")
        drawn = None
        if self.drawing is not None:
            self.scheduler.start(self.drawing.enter, "entrants")
            self.scheduler.start(self.drawing.amend, "operator who corrects")
            drawn = self.scheduler.start(self.drawing.run, "keeper of draw")
        self.platform.write(self.tell)
        self.scheduler.sleep(max(0.0, plan.active_seconds - world.elapsed))
        self._heal()
        if drawn is not None:
            drawn.join(PROMISED_SECONDS * 2 + (BEACON_SECONDS if plan.beacon else 0.0))
        if self.passing is not None:
            self.passing.run()
        self.await_agreement()
        if plan.residents:
            self._await_residents()
        self.stopping = True
        for stop in self._stops.values():
            stop.set()
        for thread in threads:
            thread.join(PROMISED_SECONDS)
            if thread.is_alive():
                raise Broken("a drain did not end after its stop signal")
        self._check()

    def rest_until(self, at: float) -> None:
        """Let the time pass, in seconds since the epoch; no drain runs meanwhile without work."""
        assert self.drawing is not None
        self.drawing.mail()
        self.drawing.due = at
        for stop in self._stops.values():
            stop.set()
        self.scheduler.sleep(self.drawing.waits)

    def kill_one(self, drain: str) -> None:
        """One of its processes dies, if one lives."""
        for process in self._living(drain)[:1]:
            self.scheduler.kill(process)

    # Drains

    def _keep_running(self, name: str, spec: DrainSpec[Any], slot: int) -> None:
        """As sensor and daemon do: start a drain, and the next one some time after it ended."""
        random, number = self.scheduler.random, 0
        while not self.stopping:
            number += 1
            process = self.begin(name, f"{name}-{slot}.{number}")
            stop = self._stops[process] = StopSignal()
            thread = self.scheduler.spawn(
                lambda process=process, stop=stop: self._run(process, spec, stop), process.name, process
            )
            thread.join()
            self.end(name, process)
            del self._stops[process]
            self.scheduler.sleep(random.uniform(0.2, 4.0))
            while self.drawing is not None and self.drawing.waits and not self._undone():
                # As the sensors: no drain while there is nothing to do.
                self.scheduler.sleep(self.drawing.waits)

    def _run(self, process: Process, spec: DrainSpec[Any], stop: StopSignal) -> None:
        runtime = self.world.runtime(process)
        limits = drain_limits(runtime.settings, spec, idle_seconds=25.0, max_seconds=60.0)
        resident = self.plan.residents and spec.residents
        try:
            report = run_drain(
                runtime, spec, limits, stop=stop, run_id=process.name, life=Life(resident, patient=resident)
            )
        except UsageError as refusal:
            # As the sensors know before they start one.
            if spec.name not in self._held:
                raise
            self.tell(f"{process.name} does not start: {refusal}")
            return
        self.reports.append((process.name, report))
        self.tell(f"{process.name} ended: {report.ended} {dict(report.counts)}")
        reached = self.outcome.reached
        reached.update({f"{spec.name}:{name}": number for name, number in report.counts.items() if number})
        reached.update(name for name, number in report.counts.items() if number)
        reached[f"ended {report.ended}"] += 1
        strain = runtime.dependencies.strain
        reached["retries"] += sum(strain.retries.values())
        reached["throttles"] += sum(strain.throttles.values())

    def begin(self, name: str, number: str) -> Process:
        """A new process of a drain or a draw, with the clock that it has there."""
        process = Process(number, self._skew.get(name, 0.0))
        self._processes.setdefault(name, []).append(process)
        self.tell(f"{process.name} starts")
        return process

    def end(self, name: str, process: Process) -> None:
        self._processes[name].remove(process)
        self.world.reached["killed"] += process.dead

    # Faults

    def _go_wrong(self) -> None:
        for fault in self.plan.faults:
            self.scheduler.sleep(max(0.0, fault.at - self.world.elapsed))
            self.tell(f"FAULT {fault}")
            self._break(fault)

    def _break(self, fault: Fault) -> None:
        world, kind, now = self.world, fault.kind, self.scheduler.time
        world.reached[f"fault {kind}"] += 1
        if kind == "election":
            undone = world.servers.mongo.elect(now + fault.seconds, rolls_back=True)
            world.reached["rolled back"] += undone
            self.watch.look_again()
            return
        if kind in TROUBLES:
            if fault.drain:
                victim = self._victim(fault.drain)
                if victim is None:
                    return
                world.victims[fault] = victim
                world.reached["fault of one process"] += 1
                if self.plan.lonely:
                    self.scheduler.start(lambda: self._judge(fault, victim), "judge of a fault")
            world.troubles.setdefault(fault.target, []).append(fault)
            self.scheduler.start(lambda: self._end_later(fault), "end of a fault")
            return
        if kind in ACTS:
            self.scheduler.start(lambda: self._act(fault), "an operator acts")
            return
        stream = world.stream
        if kind in ("split", "roll") and stream.open:
            shard = stream.open[int(self.scheduler.random.random() * len(stream.open))]
            (stream.split if kind == "split" else stream.roll)(shard, now)
        elif kind == "trim":
            world.lossy = True
            stream.forget(now)
        elif kind == "restore":
            world.lossy = world.restored = True
            self.platform.restore(fault.seconds)
        elif kind == "rewind":
            self._rewind(fault.seconds)
        elif kind == "skew":
            self._skew[fault.target] = fault.seconds
        for process in self._living(fault.drain or fault.target)[:1]:
            if kind == "crash":
                self.scheduler.kill(process)
            elif kind == "freeze":
                process.frozen_until = now + fault.seconds
            elif kind == "hang":
                process.hangs = fault.target, fault.seconds
            elif kind == "skew":
                process.skew = fault.seconds

    def _back_up(self, at: float) -> None:
        self.scheduler.sleep(max(0.0, at - self.world.elapsed))
        self._backup = dict(self.world.entries.rows)

    def _rewind(self, seconds: float) -> None:
        """The replica as it was `seconds` ago, and an operator who repairs it: the draw waits for that."""
        self.rewound = self.world.lossy = True
        entries = self.world.entries
        for key in entries.rows.keys() | self._backup.keys():
            entries.set(key, self._backup.get(key))
        self.watch.look_again()
        self.scheduler.start(self._repair, "an operator restores the replica")

    def _victim(self, drain: str) -> Process | None:
        """One process; of residents the one that works."""
        living, roles = self._living(drain), self._roles(drain)
        return min(living, key=lambda each: roles.get(each.name) != WORKING, default=None)

    def _roles(self, drain: str) -> dict[str, str]:
        """Of the residents that live; the row of one that was killed stays."""
        living = {process.name for process in self._living(drain)}
        return {name: role for name, role in self.world.roles(drain).items() if name in living}

    def _judge(self, fault: Fault, victim: Process) -> None:
        """Nothing else goes wrong in this play."""
        self.scheduler.sleep(TAKEN_OVER_SECONDS)
        roles = self._roles(fault.drain)
        if fault not in self.world.troubles.get(fault.target, []) or victim.name not in roles:
            return
        self.world.reached["judged a fault of one process"] += 1
        if WORKING not in (role for name, role in roles.items() if name != victim.name):
            self.watch.broken.append(f"{TAKEN_OVER_SECONDS:.0f} s after {fault}: {roles}")

    def _await_residents(self) -> None:
        """Once nothing goes wrong any more, of each kind one works and one stands by."""
        for name, spec in SPECS.items():
            give_up = self.world.elapsed + WHOLE_SECONDS
            while spec.spec.residents and sorted(self._roles(name).values()) != [STANDBY, WORKING]:
                if self.world.elapsed > give_up:
                    raise Broken(f"{WHOLE_SECONDS:.0f} s after all faults: {name} {self._roles(name)}")
                self.scheduler.sleep(1.0)

    def _act(self, fault: Fault) -> None:
        """What an operator does while things go wrong. Whatever stops it, nothing may be lost."""
        runtime = self.world.runtime(Process("operator"))
        try:
            getattr(self, f"_{fault.kind}")(runtime, fault)
        except (Failure, UsageError) as failure:
            self.tell(f"{fault.kind} stopped: {failure}")
        else:
            self.world.reached[f"did {fault.kind}"] += 1

    def _pause(self, _: Runtime, fault: Fault) -> None:
        calm = self.world.runtime()
        self._held.add(fault.target)
        pause_drain(calm, fault.target, "a play", by="operator")
        self._resume(calm, fault)

    def _fuse(self, _: Runtime, fault: Fault) -> None:
        calm = self.world.runtime()
        self._held.add(fault.target)
        blown = BlownFuse(fault.target, "f", "a play", iso(calm.clock()), "", code_version())
        store_fuse(calm.leases, blown)
        self._resume(calm, fault)

    def _resume(self, runtime: Runtime, fault: Fault) -> None:
        self.scheduler.sleep(fault.seconds)
        resume_drain(runtime, fault.target)
        self.tell(f"{fault.target} is resumed")

    def _cycle(self, runtime: Runtime, _: Fault) -> None:
        """Two workers share it."""
        other = self.world.runtime(Process("second operator"))
        second = self.scheduler.start(
            lambda: self._quietly(lambda: reconcile(other, Comparing(cycle=True), workers=2)), "cycle"
        )
        reconcile(runtime, Comparing(cycle=True), workers=2)
        second.join()

    def _quietly(self, act: Callable[[], object]) -> None:
        try:
            act()
        except (Failure, UsageError) as failure:
            self.tell(f"stopped: {failure}")

    def _backfill(self, runtime: Runtime, _: Fault) -> None:
        start_backfill(runtime)

    def _redrive(self, runtime: Runtime, _: Fault) -> None:
        for queue in dead_queues(runtime.names):
            if queue.name == runtime.names.replication_queue:
                redrive(
                    runtime,
                    queue,
                    Assessor(runtime, refusal),
                    RedriveOptions(dry_run=False, outcome_seconds=5.0),
                )

    def _living(self, name: str) -> list[Process]:
        living = [each for each in self._processes.get(name, ()) if not each.dead]
        self.scheduler.random.shuffle(living)
        return living

    def _end_later(self, fault: Fault) -> None:
        self.scheduler.sleep(fault.seconds)
        self._end_fault(fault)

    def _end_fault(self, fault: Fault) -> None:
        troubles = self.world.troubles.get(fault.target, [])
        if fault in troubles:
            troubles.remove(fault)
            if not troubles:
                del self.world.troubles[fault.target]
            self.tell(f"over: {fault}")

    def _heal(self) -> None:
        """The end of all faults. Records that the stream lost are an operator's: so the alert says."""
        self.tell("all faults end")
        for faults in list(self.world.troubles.values()):
            for fault in list(faults):
                self._end_fault(fault)
        for processes in self._processes.values():
            for process in processes:
                process.frozen_until = min(process.frozen_until, self.scheduler.time)
        self._skew.clear()
        self.world.servers.mongo.elect(self.scheduler.time, rolls_back=False)
        while self.rewound:
            self.scheduler.sleep(_LOOK_SECONDS)
        if self.world.lossy:
            self._repair()

    def _repair(self) -> None:
        """As the manual says: look, then repair; where a table was restored, the source wins."""
        self.tell("an operator repairs")
        self.watch.repairing = True
        process = Process("operator")

        def work() -> None:
            runtime = self.world.runtime(process)
            while not self._repaired(runtime) and self.rewound:
                self.scheduler.sleep(_LOOK_SECONDS)

        self.scheduler.spawn(work, "repair", process).join()
        if self.rewound:
            # The play goes on, and nothing else may set an entry back.
            self.rewound = self.watch.repairing = False

    def _repaired(self, runtime: Runtime) -> bool:
        """Whether nothing is left that a repair could change. Raises what the servers do to an operator, too, but for
        the repair that a draw waits for, which is repeated.
        """
        # Of ten entries, two that are ahead are as many as after a restore.
        accept = Accept(after_restore=True) if self.world.restored or self.world.behind else None
        try:
            for _ in range(_MOST_REPAIRS):
                listed = reconcile(runtime, Comparing(accept=accept))
                found = listed.counts
                self.tell(
                    f"reconcile found { {kind.value: number for kind, number in found.items() if number} }"
                )
                self.world.reached.update(f"found {kind}" for kind, number in found.items() if number)
                left = sum(number for kind, number in found.items() if kind not in _NOT_REPAIRED)
                if listed.acceptance is not None:
                    self.to_correct = {*listed.acceptance.to_correct}
                    self.world.reached["to correct"] += len(self.to_correct)
                if left == len(self.to_correct):
                    return True
                confirmed = accept and replace(accept, number=listed.acceptance.found)
                reconcile(runtime, Comparing(repair=True, yes_remove=found[Kind.ORPHANED], accept=confirmed))
        except (Failure, UsageError) as failure:
            if not self.rewound:
                raise
            self.tell(f"the repair failed: {failure}")
        return False

    # The end

    def await_agreement(self) -> None:
        began = self.world.elapsed
        while differences := self._differences():
            waited = self.world.elapsed - began
            if waited > ACCEPTED_SECONDS and self._are_for_an_operator(differences):
                self.world.reached["ahead for an operator"] += 1
                self._accepted = True
                self._repair()
            if waited > PROMISED_SECONDS:
                raise Broken(f"{PROMISED_SECONDS:.0f} s after the last fault: " + "; ".join(differences[:6]))
            self.scheduler.sleep(_LOOK_SECONDS)
        self.outcome.reached["agreed"] += 1

    def _are_for_an_operator(self, differences: Sequence[str]) -> bool:
        """Whether only entries are left that a writer created again with an earlier `createdAt`: the manual asks who
        knows to let the source win. Data of one that was removed are never left to an operator.
        """
        return not self._accepted and all(
            text.split(" ", 1)[0] in self.world.behind and checks.REMOVED not in text for text in differences
        )

    def _differences(self) -> list[str]:
        return self._undone() + ([] if self.drawing is None else self.drawing.differences())

    def _undone(self) -> list[str]:
        """What drains have to do."""
        return checks.differences(self) + ([] if self.registering is None else self.registering.differences())

    def _check(self) -> None:
        self.outcome.broken += self.watch.broken + checks.at_the_end(self)
        if self.drawing is not None:
            self.outcome.broken += self.drawing.check()
        if self.passing is not None:
            self.outcome.broken += self.passing.check()
        if self.registering is not None:
            self.outcome.broken += self.registering.check()


def play(plan: Plan, *, verbose: bool = False) -> Outcome:
    return Play(plan, verbose=verbose).run()


__all__ = ["Broken", "Callable", "Outcome", "Play", "Task", "play"]
