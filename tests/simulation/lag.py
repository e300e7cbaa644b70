"""`python -m tests.simulation --lag`: how long an entry takes to its replica, in virtual time, within AWS's limits.

Two resident drains of each kind run as a Deployment keeps them, on the settings of production, while entries are
written. Calls take what they take on AWS, code takes no time, and the stream hands out a record at once: the figures
are those of waits, limits and hand-overs, by seed.
"""

from __future__ import annotations

import gc
import itertools
import math
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from regworkers_core.drains.runner import Life, drain_limits, run_drain
from regworkers_core.engine.stop import StopSignal
from regworkers_core.settings import Settings, settings_of
from tests.simulation.platform import attributes, stamp
from tests.simulation.scheduler import Process
from tests.simulation.servers.streams import HASHES
from tests.simulation.servers.table import hash_of
from tests.simulation.specs import SPECS
from tests.simulation.world import World, seeded, settings

DRAINS = ("enqueue", "save")
# From the end of a process until the next one works: a pod of an image that the node has.
START_SECONDS = 30.0
# Until all drains have begun, before anything is measured.
WARM_SECONDS = 30.0
# After the last entry, until what has not arrived counts as lost.
PATIENCE_SECONDS = 120.0
# An entry changes again after this time, so that a long play needs little memory.
_ROUND_SECONDS = 60.0
_UPKEEP_SECONDS = 20.0
_MOST_STEPS = 10**9
READ_UNIT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Scenario:
    """`rate` entries a second for `seconds`, after `idle` seconds without one. Every `hand_over` seconds a new process
    replaces the one that works, of each drain in turn; at `kills` it is killed.
    """

    name: str
    rate: float
    seconds: float
    idle: float = 0.0
    hand_over: float = math.inf
    kills: Sequence[float] = ()


SCENARIOS = (
    Scenario("steady, with hand-overs", 200.0, 1200.0, hand_over=120.0),
    Scenario("first entry", 1 / 20, 2000.0, idle=3600.0),
    Scenario("killed drains", 200.0, 300.0, kills=(60.0, 120.0, 180.0, 240.0)),
    Scenario("hand-overs and killed drains", 200.0, 300.0, hand_over=45.0, kills=(60.0, 120.0, 180.0, 240.0)),
)


@dataclass(slots=True)
class Figures:
    scenario: str
    shards: int
    seed: int
    lags: list[float] = field(default_factory=list)
    written: int = 0
    lost: int = 0
    refused: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    elapsed: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        lags = sorted(self.lags)
        points = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "worst": 1.0}
        return {
            "scenario": self.scenario,
            "shards": self.shards,
            "seed": self.seed,
            "entries": self.written,
            "lost": self.lost,
            **{
                name: round(lags[math.ceil(len(lags) * share) - 1], 3)
                for name, share in points.items()
                if lags
            },
            "readsASecond": round(self.calls["GetRecords"] / self.elapsed, 1),
            "refusedReads": self.refused,
            "leaseWritesASecond": round(self.calls["lease writes"] / self.elapsed, 1),
            "leaseReadUnitsASecond": round(self.calls["lease reads"] / self.elapsed, 1),
        }


def latency(server: str, share: float) -> float:
    """Of AWS's services 10 to 30 ms, of MongoDB 2 to 8 ms; one call in a hundred takes ten times as long."""
    shortest, longest = (0.002, 0.008) if server == "mongo" else (0.01, 0.03)
    return longest * 10 if share >= 0.99 else shortest + (longest - shortest) * share


def of_production() -> Settings:
    """The settings of `prod` that decide how long something waits."""
    prod = settings_of("prod")
    kept = {name: getattr(prod, name) for name in ("drain", "enqueue", "stream", "save", "retry")}
    return settings(relays=False).model_copy(update=kept)


class Lag:
    def __init__(self, scenario: Scenario, shards: int, seed: int) -> None:
        self.scenario = scenario
        self.world = World(seed, settings=of_production(), shards=shards)
        self.world.latency = latency  # type: ignore[method-assign]
        self.scheduler = self.world.scheduler
        self.scheduler.most_steps = _MOST_STEPS
        self.figures = Figures(scenario.name, shards, seed)
        self.stopping = False
        self._table = self.world.runtime()
        self._campaigns = list(_one_for_each(shards))
        self._versions: Counter[str] = Counter()
        # By entry: the versions that were written and not seen in the replica, with their times.
        self._pending: dict[str, deque[tuple[int, float]]] = {}
        # By drain, oldest first.
        self._running: dict[str, list[tuple[Process, StopSignal]]] = {name: [] for name in DRAINS}
        self._started = 0
        monitors = self.world.monitors
        monitors[("mongo", "bulk_write")] = [self._saved]
        monitors[("streams", "GetRecords")] = [lambda *_: self._count("GetRecords")]
        for operation in ("PutItem", "UpdateItem", "DeleteItem"):
            monitors[("dynamodb", operation)] = [self._writes_lease]
        for operation in ("GetItem", "Query"):
            monitors[("dynamodb", operation)] = [self._reads_leases]

    def run(self) -> Figures:
        collecting = gc.isenabled()
        gc.disable()
        try:
            with seeded(self.scheduler):
                self.scheduler.run(self._main)
        finally:
            if collecting:
                gc.enable()
        if self.scheduler.raised:
            raise self.scheduler.raised[0][1]
        return self.figures

    def _main(self) -> None:
        scenario, sleep = self.scenario, self.scheduler.sleep
        for name in DRAINS:
            # The second is the standby.
            self._start(name)
            sleep(1.0)
            self._start(name)
        sleep(WARM_SECONDS)
        self.figures.calls.clear()
        began = self.scheduler.time
        self.scheduler.start(self._upkeep, "upkeep")
        sleep(scenario.idle)
        self.scheduler.start(self._hand_over, "deployment")
        self.scheduler.start(self._kill, "nemesis")
        self._write()
        self.figures.elapsed = self.scheduler.time - began
        give_up = self.scheduler.time + PATIENCE_SECONDS
        while any(self._pending.values()) and self.scheduler.time < give_up:
            sleep(0.5)
        self.figures.refused = self.world.servers.aws.streams.refused_reads
        self.figures.lost = sum(map(len, self._pending.values()))
        self.stopping = True
        for running in self._running.values():
            for _, stop in running:
                stop.set()

    # Entries

    def _write(self) -> None:
        scenario, random = self.scenario, self.scheduler.random
        number, end = 0, self.scheduler.time + scenario.seconds
        while self.scheduler.time < end:
            # As they come, not in step with the reads.
            self.scheduler.sleep(random.expovariate(scenario.rate))
            number += 1
            self._put(number % max(1, round(scenario.rate * _ROUND_SECONDS)))

    def _put(self, number: int) -> None:
        campaign, entry = self._campaigns[number % len(self._campaigns)], f"e{number}"
        id_, now = f"{campaign}:{entry}", self.scheduler.time
        self._versions[id_] += 1
        self.figures.written += 1
        self._pending.setdefault(id_, deque()).append((self._versions[id_], now))
        item = {
            "PK": f"CAMPAIGN#{campaign}",
            "SK": f"ENTRY#{entry}",
            "entityType": "ENTRY",
            "campaignId": campaign,
            "entryId": entry,
            "ref": f"ref-{number}",
            "email": f"fan{number}@example.com",
            "markets": ["berlin"],
            "version": self._versions[id_],
            "createdAt": "2026-11-26T00:00:00.000Z",
            "updatedAt": stamp(now),
            "needsReplication": True,
        }
        self._table.dynamodb.put_item(TableName=self._table.names.demand_table, Item=attributes(item))

    def _saved(self, process: Process, request: Any) -> None:
        if request["collection"] != "entries":
            return
        rows = self.world.servers.mongo.made_table(self.world.database.name, "entries").rows
        for update in request["of"]:
            id_ = update._filter["_id"]
            waiting, row = self._pending.get(id_), rows.get(id_)
            if row is not None:
                version = row.document["_replication"]["version"]
                while waiting and waiting[0][0] <= version:
                    self.figures.lags.append(self.scheduler.time - waiting.popleft()[1])

    # Processes

    def _start(self, name: str) -> None:
        self._started += 1
        process, stop = Process(f"{name}-{self._started}"), StopSignal()
        self._running[name].append((process, stop))
        self.scheduler.start(lambda: self._keep(name, process, stop), f"keeper of {process.name}")

    def _keep(self, name: str, process: Process, stop: StopSignal) -> None:
        """Until it ends; then another one, unless it was asked to end."""
        self.scheduler.spawn(lambda: self._run(name, process, stop), process.name, process).join()
        self._running[name].remove((process, stop))
        if not stop.is_set:
            self.scheduler.sleep(START_SECONDS)
            if not self.stopping:
                self._start(name)

    def _run(self, name: str, process: Process, stop: StopSignal) -> None:
        runtime, spec = self.world.runtime(process), SPECS[name].spec
        limits = drain_limits(runtime.settings, spec, idle_seconds=math.inf, max_seconds=math.inf)
        run_drain(runtime, spec, limits, stop=stop, run_id=process.name, life=Life(resident=True))

    def _hand_over(self) -> None:
        """As a new version does: one more starts, then the one that works is asked to end."""
        if math.isinf(self.scenario.hand_over):
            return
        for name in itertools.cycle(DRAINS):
            self.scheduler.sleep(self.scenario.hand_over / len(DRAINS))
            if self.stopping:
                return
            self._start(name)
            self.scheduler.sleep(5.0)
            self._running[name][0][1].set()

    def _kill(self) -> None:
        began = self.scheduler.time
        for number, at in enumerate(self.scenario.kills):
            self.scheduler.sleep(began + at - self.scheduler.time)
            self.scheduler.kill(self._running[DRAINS[number % len(DRAINS)]][0][0])

    def _upkeep(self) -> None:
        """What is behind the drains, and what nothing reads any more, is dropped: a long play would keep it all."""
        queues = self.world.servers.queues.queues
        while not self.stopping:
            self.scheduler.sleep(_UPKEEP_SECONDS)
            events = queues[self._table.names.analytics_queue]
            for message in list(events.messages.values()):
                events.drop(message)
            for shard in self.world.stream.shards.values():
                shard.trim(self.scheduler.time - _ROUND_SECONDS)

    def _count(self, name: str, number: int = 1) -> None:
        self.figures.calls[name] += number

    def _writes_lease(self, process: Process, request: Any) -> None:
        if request["TableName"] == self._table.names.lease_table:
            self._count("lease writes")

    def _reads_leases(self, process: Process, request: Any) -> None:
        """Counts the units of a consistent read, which bills at least one."""
        name = request["TableName"]
        if name != self._table.names.lease_table:
            return
        size = 0
        if "Key" not in request:
            (key,) = (value["S"] for value in request["ExpressionAttributeValues"].values())
            rows = self.world.servers.tables.table(name).partitions.get(key, {})
            size = sum(row_bytes for _, row_bytes in rows.values())
        self._count("lease reads", max(1, math.ceil(size / READ_UNIT_BYTES)))


def _one_for_each(shards: int) -> Iterator[str]:
    """A campaign whose entries lie in each shard."""
    missing = set(range(shards))
    for number in range(10**7):
        name = f"c{number}"
        shard = hash_of(f"CAMPAIGN#{name}") * shards // HASHES
        if shard in missing:
            missing.remove(shard)
            yield name
        if not missing:
            return
