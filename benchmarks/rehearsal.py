"""A campaign at its announced size on an embedded stack, from the first entry to the last message:
`make rehearse-campaign ENTRIES=3000000`.

The drains, the import of codes and the draw are processes of the command line, as on a machine without Dagster. Entries
are written only while few wait, because the embedded SQS gets slow with its backlog. What is done is in the instance's
folder: the same command goes on after an interruption, and `--fresh` begins again.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import orjson
import psutil
from botocore.exceptions import BotoCoreError

from benchmarks.figures import MIB, append, keep_the_stream
from benchmarks.page import stages_table, write_tables
from benchmarks.readme import conditions, say
from benchmarks.replication.data import Entries, settings, write
from regworkers_core.adapters.aws.sqs import MAX_BATCH
from regworkers_core.adapters.mongo.draws import PhaseRecord, PhaseStatus
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.infrastructure.provision import provision
from regworkers_core.observability.logs import configure_logging
from regworkers_core.operations.health.activity import Activity, Window
from regworkers_core.operations.runbooks import cost
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.load import MARKETS, DemoCampaign
from regworkers_local.stack import Stack
from regworkers_local.state import read_json, write_json
from tools.demo.life import every

T = TypeVar("T")
CAMPAIGN = DemoCampaign("rehearsal", "Rehearsal")
ENTRIES_PER_SEAT = 20
_COMMAND = Path(sys.executable).with_name("regworkers")
_BATCH = 1_000
# Written and not yet saved: some hundred messages, less than the stream keeps.
_AHEAD, _STREAM_SECONDS = 20_000, 60.0
_PAUSE_SECONDS, _LOOK_SECONDS, _SAY_SECONDS = 0.2, 1.0, 30.0
_FOR_EVER = ("--idle-seconds", "1e6", "--max-seconds", "1e6")
_UNTIL_IDLE = ("--idle-seconds", "10", "--max-seconds", "1e6")
_VISIBILITY_SECONDS = 600
# What an entry may lack is left out, for the memory of the embedded DynamoDB.
_LEFT_OUT = frozenset({"attributes", "globalUserId", "memberId"})
_ATTEMPTS = 5


@dataclass
class Stage:
    """What one stage took, over all its attempts; memory is MiB by process at its highest."""

    done: bool = False
    items: int = 0
    seconds: float = 0.0
    dollars: float = 0.0
    memory: dict[str, int] = field(default_factory=dict)


class Rehearsal:
    """The stages in turn; those that the file calls done are not repeated."""

    def __init__(self, stack: Stack, entries: int) -> None:
        self._stack, self._entries = stack, entries
        self._file, self._log = stack.folder / "rehearsal.json", stack.folder / "rehearsal.log"
        self.stages = {name: Stage(**each) for name, each in read_json(self._file).items()}
        self._runtime = Runtime(settings(stack.state, ""))
        self._environment = os.environ | {
            "REGWORKERS_INSTANCE": stack.instance,
            # A page of a query takes seconds with millions of entries.
            "REGWORKERS_AWS__READ_TIMEOUT_SECONDS": "300",
            # The embedded CloudWatch would hold three lines an entry in memory; an agent collects what pods write.
            "REGWORKERS_OBSERVABILITY__CLOUDWATCH_ENABLED": "false",
            # A canary waits for people, who would have looked by then.
            "REGWORKERS_NOTIFICATIONS__CANARY_HOLD_SECONDS": "0",
        }
        self._watched = {name: psutil.Process(ref.pid) for name, ref in stack.state.processes.items()}
        self._watched["rehearsal"] = psutil.Process()

    def play(self) -> None:
        """Raises RuntimeError if a step fails; its output is in the log."""
        self._stage("create", self._create)
        self._stage("register and replicate", self._register, "enqueue", "save", "publish")
        self._stage("close", self._close)
        self._stage("draw", self._draw)
        self._stage("assign codes", self._assign, "selections", "publish")
        self._stage("notify", self._notify, "notifications")
        if not self._phase().reached(PhaseStatus.COMPLETED):
            raise RuntimeError(f"the draw is {self._phase().status}")

    def _stage(self, name: str, work: Callable[[], int], *drains: str) -> None:
        stage = self.stages.setdefault(name, Stage())
        if stage.done:
            say(f"{name}: done before")
            return
        say(f"{name} ...")
        began = time.time()
        try:
            with self._memory(stage):
                stage.items = work()
            stage.done = True
        finally:
            seconds = time.time() - began
            stage.seconds = round(stage.seconds + seconds, 1)
            dollars = self._dollars(began, drains) if drains else seconds * cost.DRAIN_SECOND
            stage.dollars = round(stage.dollars + dollars, 4)
            write_json(self._file, {name: vars(each) for name, each in self.stages.items()})
        say(f"{name}: {stage.items:,} in {stage.seconds:,.0f} s")

    def _dollars(self, began: float, drains: tuple[str, ...]) -> float:
        """As `regworkers runbook cost` counts it; CloudWatch is not asked."""
        now = time.time()
        done = Activity(self._runtime).over(Window(began, now))
        work = {name: each for name, each in done.items() if name in drains}
        return float(str(cost.assess(work, (now - began) / 86_400).values["dollars"]))

    @contextmanager
    def _memory(self, stage: Stage) -> Iterator[None]:
        def look() -> None:
            for name, process in tuple(self._watched.items()):
                with suppress(psutil.NoSuchProcess):
                    now = round(process.memory_info().rss / MIB)
                    stage.memory[name] = max(stage.memory.get(name, 0), now)

        with every(_LOOK_SECONDS, look):
            yield

    def _create(self) -> int:
        """The campaign, with seats for one entry in twenty, and its codes."""
        runtime, seats = self._runtime, max(self._entries // ENTRIES_PER_SEAT // len(MARKETS), 1)
        list(provision(runtime))
        document = CAMPAIGN.document(opens_at=iso(time.time()))
        document["markets"] = [
            {**market, "capacity": seats, "reserves": []} for market in document["markets"]
        ]
        query = {"_id": CAMPAIGN.campaign_id}
        runtime.database["campaigns"].update_one(query, {"$setOnInsert": document}, upsert=True)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "codes.csv"
            # With a leading `A`: the embedded MongoDB takes an id like 12E345 for a number.
            rows = [
                f"A{market[:2].upper()}{number:08d},{market}" for market in MARKETS for number in range(seats)
            ]
            file.write_text("\n".join(["code,marketId", *rows]))
            self._command("codes", "import", str(file), "--campaign", CAMPAIGN.campaign_id)
        return len(rows)

    def _register(self) -> int:
        """Write all entries, and wait until they are saved and their events published."""
        names, replica = self._runtime.names, self._runtime.database["entries"]
        queues = [self._runtime.queue(each) for each in (names.replication_queue, names.analytics_queue)]
        entries, said_at, looked_at = Entries(campaigns=(CAMPAIGN,)), 0.0, 0.0
        saved: int = replica.estimated_document_count()
        # After an interruption the last ones are written again: whether they were is not known.
        written, known = 0, max(saved - _AHEAD, 0)
        with self._drains("enqueue", "save", "publish") as look_after:
            while saved < self._entries or any(_patiently(queue.depth).total for queue in queues):
                if written < self._entries and written - saved < _AHEAD:
                    items = entries.round(min(_BATCH, self._entries - written), time.time())
                    written += len(items)
                    if written > known:
                        slim = [{name: each[name] for name in each.keys() - _LEFT_OUT} for each in items]
                        _patiently(partial(write, self._runtime, slim))
                else:
                    time.sleep(_PAUSE_SECONDS)
                look_after()
                # The embedded MongoDB counts every document each time.
                if time.monotonic() - looked_at > _LOOK_SECONDS:
                    saved, looked_at = replica.estimated_document_count(), time.monotonic()
                if time.monotonic() - said_at > _SAY_SECONDS:
                    said_at = time.monotonic()
                    aws = self._watched["aws"].memory_info().rss / MIB
                    say(f"{written:,} written, {saved:,} saved, AWS {aws:,.0f} MiB")
        return saved

    def _close(self) -> int:
        self._command("campaign", "close", CAMPAIGN.campaign_id)
        return 1

    def _draw(self) -> int:
        self._command("draw", "run", CAMPAIGN.campaign_id, "--yes", "--no-wait")
        return int(self._phase().freeze["eligible"])

    def _phase(self) -> PhaseRecord:
        record = self._runtime.draws.get(CAMPAIGN.campaign_id)
        if record is None:
            raise RuntimeError("there is no draw")
        return record.latest

    def _assign(self) -> int:
        with self._drains("publish"):
            self._command("drain", "selections", *_UNTIL_IDLE)
        selections: int = self._runtime.database["selections"].estimated_document_count()
        return selections

    def _notify(self) -> int:
        """Queue the messages, and take them off as the mailer does."""
        queue, over, sent = self._runtime.queue(self._runtime.names.notification_queue), threading.Event(), 0

        def mail() -> None:
            nonlocal sent
            while True:
                ending = over.is_set()
                received = _patiently(partial(queue.receive, MAX_BATCH, 1, _VISIBILITY_SECONDS))
                _patiently(partial(queue.delete, received))
                sent += sum(len(orjson.loads(each.body)["items"]) for each in received)
                if ending and not received:
                    return

        mailer = threading.Thread(target=mail, daemon=True)
        mailer.start()
        try:
            self._command("drain", "notifications", *_UNTIL_IDLE)
        finally:
            over.set()
            mailer.join()
        return sent

    def _command(self, *words: str) -> None:
        """Every command goes on where an earlier attempt stopped. Raises RuntimeError."""
        for _ in range(_ATTEMPTS):
            process = self._start(*words)
            try:
                if not process.wait():
                    return
            finally:
                process.kill()
                process.wait()
            say(f"`regworkers {' '.join(words)}` failed: see {self._log}")
        raise RuntimeError(f"{words[0]} failed {_ATTEMPTS} times")

    @contextmanager
    def _drains(self, *names: str) -> Iterator[Callable[[], None]]:
        """Drains at work. The caller calls what it is given now and then: one that has ended, as after an outage of a
        server, is started again.
        """
        running = {name: self._start("drain", name, *_FOR_EVER) for name in names}

        def look_after() -> None:
            for name, process in running.items():
                if process.poll() is not None:
                    say(f"drain {name} ended: see {self._log}")
                    running[name] = self._start("drain", name, *_FOR_EVER)

        try:
            yield look_after
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [_COMMAND, *words], cwd=PROJECT_ROOT, env=self._environment, stdout=log, stderr=log
            )
        self._watched[words[1] if words[0] == "drain" else words[0]] = psutil.Process(process.pid)
        return process


def _patiently(call: Callable[[], T]) -> T:
    """Again after a pause of the embedded server; what is asked may be done twice."""
    while True:
        try:
            return call()
        except (TransientFailure, BotoCoreError) as error:
            say(f"again: {error}")
            time.sleep(_PAUSE_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.rehearsal", description=__doc__)
    parser.add_argument("--entries", type=int, default=3_000_000)
    parser.add_argument("--fresh", action="store_true", help="delete what an interrupted rehearsal has left")
    parser.add_argument("--append", action="store_true", help="add the figures to benchmarks/figures.jsonl")
    options = parser.parse_args()
    configure_logging("WARNING")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ.pop("CONFIG_ENV", None)
    keep_the_stream(_STREAM_SECONDS)
    stack = Stack(PROJECT_ROOT, f"rehearsal-{options.entries}")
    if options.fresh:
        stack.reset()
    where = conditions()
    # It stays up after an interruption: the embedded servers keep what they hold in memory.
    stack.up()
    rehearsal = Rehearsal(stack, options.entries)
    rehearsal.play()
    stages = {name: vars(stage) for name, stage in rehearsal.stages.items()}
    stack.reset()
    print(stages_table(stages))
    if options.append:
        append({"suite": "rehearsal", "size": options.entries, **where, "figures": {"stages": stages}})
        write_tables()


if __name__ == "__main__":
    main()
