"""A campaign of faults on real servers: `python -m tests.faults.campaign --kills 1000 --hours 4`.

In each round a namespace of its own is under load: a writer, drains of every kind and the steps of a draw run in
processes of their own, by way of fault proxies. Processes are killed (SIGKILL) at instants of a Poisson process and
paused for longer than a lease, clocks are an hour off, files may not grow, and operations of servers fail. Then
everything is killed, the faults end, the world recovers, and the checker judges the history of the round.

`--resume` goes on with the campaign in the folder. Exit code 1 if anything was lost, doubled or wrong.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import os
import platform
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import structlog
from pymongo.errors import PyMongoError

from benchmarks.readme import say
from regworkers_core.domain.selection import StepState
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.stack import Stack
from tests.faults import aftermath
from tests.faults.checker import DOUBLED, LOST, OLDER, WRONG, Verdict, check, read
from tests.faults.victim import VARIANTS
from tests.faults.workers import SECTIONS, STEPS, Job
from tests.support.environment import leave_instances
from tests.support.fault_proxy import Fault, FaultProxy, Rule, fault_proxy, proxied
from tests.support.runtimes import ADDRESSES, new_runtime, redis_url, remove_namespace
from tests.support.waiting import wait_until

FOLDER = PROJECT_ROOT / ".local" / "campaign"
PAGE = PROJECT_ROOT / "benchmarks" / "reliability.md"
END = "<!-- figures of the campaigns: end -->"
LATE = "late"
SLOTS = ("writer", "enqueue", "save", "save", "publish", "draw", LATE)
KILLS_PER_ROUND = 50
# Between two strikes on processes, on average. One of PAUSE_SHARE pauses instead.
GAP_SECONDS, PAUSE_SHARE = 0.8, 0.15
# A lease is 1 s, a message is hidden for 2 s.
PAUSE_SECONDS = (1.5, 4.0)
OFFSETS = (-aftermath.AHEAD_SECONDS, 0.0, 0.0, 0.0, aftermath.AHEAD_SECONDS)
FILE_BYTES = (0, 0, 0, 512, 16 * 1024)
# What fails: the proxy, the service, its operations.
TARGETS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("aws", "dynamodb", ("*", "BatchGetItem", "BatchExecuteStatement", "PutItem", "UpdateItem", "GetItem")),
    ("aws", "streams", ("*", "GetRecords", "GetShardIterator", "DescribeStream")),
    ("aws", "sqs", ("*", "SendMessageBatch", "ReceiveMessage", "DeleteMessageBatch", "ChangeMessage*")),
    ("aws", "s3", ("*", "PUT *", "GET *", "HEAD *")),
    ("aws", "secretsmanager", ("*", "GetSecretValue", "CreateSecret")),
    ("aws", "*", ("*",)),
    ("mongo", "*", ("*", "update", "insert", "find", "aggregate", "findAndModify")),
    ("kafka", "kafka", ("*", "Produce", "Metadata")),
)
OF_KAFKA = (Fault.REFUSED, Fault.HANGING, Fault.SLOW, Fault.CUT)


@dataclass(slots=True)
class State:
    """Of a campaign, stored after each round. `faults` counts requests that a proxy made fail."""

    seed: int
    started: str
    rounds: int = 0
    seconds: float = 0.0
    writes: int = 0
    kills: dict[str, int] = field(default_factory=dict)
    # Steps of draws that processes under fire did, and in which they were killed.
    steps: dict[str, int] = field(default_factory=dict)
    struck: dict[str, int] = field(default_factory=dict)
    pauses: int = 0
    skewed: int = 0
    full_disks: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    found: dict[str, int] = field(default_factory=dict)
    repeats: int = 0
    # Dead letters of killed processes, which the recovery sent again or dropped.
    worked_off: int = 0

    @classmethod
    def load(cls, file: Path) -> State:
        return cls(**json.loads(file.read_text(encoding="utf-8")))

    def save(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_suffix(".new")
        beside.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        beside.replace(file)

    def add(
        self, lines: Sequence[Mapping[str, Any]], verdict: Verdict, faults: Counter[str], seconds: float
    ) -> None:
        roles = {line["p"]: line["role"] for line in lines if line["k"] == "born"}
        born = [line for line in lines if line["k"] == "born"]
        self.rounds += 1
        self.seconds += seconds
        self.writes += verdict.counts["answer"]
        self.pauses += verdict.counts["pause"]
        self.skewed += sum(bool(line["offset"]) for line in born)
        self.full_disks += sum(bool(line["fileBytes"]) for line in born)
        self.repeats += verdict.repeats
        kills = Counter(roles[line["who"]] for line in lines if line["k"] == "kill")
        self.kills = dict(Counter(self.kills) + kills)
        steps = Counter(
            line["step"]
            for line in lines
            if line["k"] == "step" and line["state"] == "done" and not line.get("before")
        )
        self.steps = dict(Counter(self.steps) + steps)
        self.struck = dict(Counter(self.struck) + struck(lines))
        self.worked_off += sum(line["sent"] + line["dropped"] for line in lines if line["k"] == "worked off")
        self.faults = dict(Counter(self.faults) + faults)
        self.found = dict(Counter(self.found) + Counter(kind for kind, _ in verdict.findings))


def struck(lines: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """In which steps of a draw processes were killed."""
    inside: dict[str, str] = {}
    found = Counter[str]()
    for line in lines:
        if line["k"] == "step" and line["state"] == "begun":
            inside[line["p"]] = line["step"]
        elif line["k"] == "step":
            inside.pop(line["p"], None)
        elif line["k"] == "kill" and line["who"] in inside:
            found[inside.pop(line["who"])] += 1
    return found


class History:
    """Takes the lines of all processes into one compressed file, and knows which of them live."""

    def __init__(self, file: Path) -> None:
        self._file = gzip.open(file, "wb", compresslevel=5)  # noqa: SIM115 (closed by close)
        self._lock = threading.Lock()
        # Name by process id.
        self.alive: dict[int, str] = {}
        self.ended: set[str] = set()
        # How many steps of the draw were done.
        self.steps = 0
        self.ready = threading.Event()

    def tell(self, kind: str, **facts: Any) -> None:
        """A line of the supervisor's own."""
        self.take(
            json.dumps({"k": kind, "t": round(time.monotonic(), 4), "p": "supervisor", **facts}).encode()
        )

    def take(self, line: bytes) -> None:
        fact = json.loads(line)
        with self._lock:
            self._file.write(line.strip() + b"\n")
        if fact["k"] == "born":
            self.alive[fact["pid"]] = fact["p"]
        elif fact["k"] == "ended":
            self.alive.pop(fact["pid"], None)
            self.ended.add(fact["p"])
        elif fact["k"] == "step" and fact["state"] in ("done", StepState.UNCHANGED):
            self.steps = max(self.steps, 1 + STEPS.index(fact["step"]))
        elif fact["k"] == "ready":
            self.ready.set()

    def close(self) -> None:
        with self._lock:
            self._file.close()


class Round:
    """One round; `strike` until enough were killed, then recovery. The namespace is removed if the round is clean."""

    def __init__(
        self,
        number: int,
        seed: int,
        proxies: Mapping[str, FaultProxy],
        history: History,
        variant: str,
    ) -> None:
        # One more in each round, from none to all.
        self._variant, self._steps_before = variant, (number - 1) % (len(STEPS) + 1)
        self._random = random.Random(f"{seed}/{number}")
        self._proxies, self.history = proxies, history
        self.runtime = new_runtime(**SECTIONS)
        plain = {name: os.environ[variable] for name, variable in ADDRESSES.items()}
        plain["redis"] = redis_url(self.runtime.names.prefix, plain["redis"])
        self._plain = plain
        self._through = {**plain, **{name: proxied(plain[name], each) for name, each in proxies.items()}}
        self._slots: dict[int, str] = {}
        self._born = 0
        self._known: dict[str, Any] = {}
        self._end = threading.Event()

    def play(self, kills: int) -> None:
        history = self.history
        aftermath.set_up(self.runtime, history.tell, self._steps_before)
        with self._ancestor() as ancestor, self._looks():
            self._strike(ancestor, kills)
            for proxy in self._proxies.values():
                proxy.rules = ()
            for pid in list(history.alive):
                self._send(ancestor, pid, signal.SIGKILL)
            wait_until(lambda: not history.alive, what="the end of all processes")
            waits = aftermath.recover(self.runtime, history.tell)
        aftermath.look(self.runtime, history.tell, self._known)
        aftermath.tell_all(self.runtime, history.tell)
        history.tell("end", open=waits)

    @contextmanager
    def _ancestor(self) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "tests.faults.workers", self._variant]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=PROJECT_ROOT
        )
        assert process.stdout is not None and process.stdin is not None
        lines = process.stdout

        def read_all() -> None:
            for line in lines:
                self.history.take(line)

        reader = threading.Thread(target=read_all, name="history")
        reader.start()
        try:
            assert self.history.ready.wait(60), "the ancestor of the processes did not start"
            yield process
        finally:
            process.stdin.close()
            process.wait(timeout=30)
            reader.join(timeout=30)

    @contextmanager
    def _looks(self) -> Iterator[None]:
        """Looks at the replica all the time."""

        def look() -> None:
            while not self._end.wait(0.25):
                # On a busy machine a reading may fail: it is missing, and nothing else.
                with suppress(PyMongoError):
                    aftermath.look(self.runtime, self.history.tell, self._known)

        looking = threading.Thread(target=look, name="looks")
        looking.start()
        try:
            yield
        finally:
            self._end.set()
            looking.join(timeout=30)

    def _strike(self, ancestor: subprocess.Popen[bytes], kills: int) -> None:
        chosen, now = self._random, time.monotonic
        next_strike, next_rule, give_up = now() + 1.0, now() + 1.0, now() + 20 * GAP_SECONDS * kills
        resumed: list[tuple[float, int]] = []
        while kills and now() < give_up:
            self._fill(ancestor)
            for at, pid in tuple(resumed):
                if now() >= at:
                    resumed.remove((at, pid))
                    self._send(ancestor, pid, signal.SIGCONT)
            if now() >= next_rule:
                next_rule = now() + self._change_rules()
            if now() >= next_strike and (alive := sorted(self.history.alive)):
                next_strike = now() + chosen.expovariate(1 / GAP_SECONDS)
                pid = chosen.choice(alive)
                if chosen.random() < PAUSE_SHARE:
                    self.history.tell("pause", who=self.history.alive.get(pid))
                    self._send(ancestor, pid, signal.SIGSTOP)
                    resumed.append((now() + chosen.uniform(*PAUSE_SECONDS), pid))
                elif (name := self.history.alive.get(pid)) is not None:
                    self.history.tell("kill", who=name)
                    self._send(ancestor, pid, signal.SIGKILL)
                    kills -= 1
            time.sleep(0.01)

    def _fill(self, ancestor: subprocess.Popen[bytes]) -> None:
        """A new process for each slot without one."""
        for slot, role in enumerate(SLOTS):
            name = self._slots.get(slot)
            if name is None or name in self.history.ended:
                self._slots[slot] = self._start(ancestor, self._role(role))

    def _role(self, slot: str) -> str:
        if slot == "draw" and self.history.steps == len(STEPS):
            # Finished: what it has released is under fire instead.
            return self._random.choice(("selections", "notifications", "draw"))
        if slot != LATE:
            return slot
        # Nothing to do before the publication, then two of a kind at times.
        return self._random.choice(("draw", "save", "enqueue", "selections", "selections", "notifications"))

    def _start(self, ancestor: subprocess.Popen[bytes], role: str) -> str:
        chosen = self._random
        self._born += 1
        is_writer, next_step = role == "writer", min(self.history.steps, len(STEPS) - 1)
        job = Job(
            name=f"{role}-{self._born}",
            role=role,
            prefix=self.runtime.names.prefix,
            # Writers are the platform's: neither their network nor their clock is ours.
            addresses=self._plain if is_writer else self._through,
            seed=chosen.getrandbits(32),
            seconds=chosen.uniform(2.0, 8.0),
            offset=0.0 if is_writer else chosen.choice(OFFSETS),
            file_bytes=chosen.choice(FILE_BYTES) if role == "draw" else 0,
            # Mostly at what is to be done next.
            first=next_step if chosen.random() < 0.7 else chosen.randint(0, next_step),
            steps=chosen.randint(1, len(STEPS)),
        )
        self._ask(ancestor, job.line())
        return job.name

    def _send(self, ancestor: subprocess.Popen[bytes], pid: int, number: signal.Signals) -> None:
        """By the ancestor, which knows whether the process is still its child."""
        self._ask(ancestor, json.dumps({"pid": pid, "signal": number.value}).encode() + b"\n")

    @staticmethod
    def _ask(ancestor: subprocess.Popen[bytes], line: bytes) -> None:
        assert ancestor.stdin is not None
        ancestor.stdin.write(line)
        ancestor.stdin.flush()

    def _change_rules(self) -> float:
        """One fault at one place, or none; returns for how long."""
        chosen = self._random
        for proxy in self._proxies.values():
            if proxy.rules:
                proxy.rules = ()
        if chosen.random() < 0.4:
            return chosen.uniform(0.5, 3.0)
        name, service, operations = chosen.choice(TARGETS)
        fault = chosen.choice(OF_KAFKA if name == "kafka" else tuple(Fault))
        operation = chosen.choice(operations)
        rule = Rule(fault, service, operation, chance=chosen.choice((1.0, 0.3)), seconds=1.5)
        self._proxies[name].rules = [rule]
        self.history.tell("rule", fault=fault, server=name, service=service, operation=operation)
        return chosen.uniform(0.5, 2.5)


@dataclass(slots=True)
class Campaign:
    """All rounds of a state, in a folder; `variant` is what is broken on purpose."""

    folder: Path
    state: State
    variant: str = "good"

    def round(self, kills: int) -> Verdict:
        """Play and judge the next one; its history stays in the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        number, started = self.state.rounds + 1, time.monotonic()
        file = self.folder / f"round-{number:04d}.jsonl.gz"
        history = History(file)
        with ExitStack() as around:
            around.callback(history.close)
            proxies = {
                name: around.enter_context(fault_proxy(name, os.environ[ADDRESSES[name]], seed=number))
                for name in ("aws", "mongo", "kafka")
            }
            played = Round(number, self.state.seed, proxies, history, self.variant)
            played.play(kills)
            faults = Counter[str]()
            for proxy in proxies.values():
                for (_, _, fault), times in proxy.seen.items():
                    if fault:
                        faults[fault] += times
        lines = read(file)
        verdict = check(lines)
        self.state.add(lines, verdict, faults, time.monotonic() - started)
        self.state.save(self.folder / "state.json")
        if not verdict.findings:
            remove_namespace(played.runtime)
        return verdict


def row(state: State) -> str:
    """A line of the table in benchmarks/reliability.md."""
    found = [str(state.found.get(kind, 0)) for kind in (LOST, DOUBLED, OLDER, WRONG)]
    cells = [
        state.started,
        str(state.seed),
        f"{state.seconds / 3600:.2f}",
        f"{sum(state.kills.values()):,}",
        f"{state.pauses:,}",
        f"{state.skewed:,}",
        f"{state.full_disks:,}",
        f"{sum(state.faults.values()):,}",
        f"{state.writes:,}",
        f"{state.repeats:,}",
        f"{state.worked_off:,}",
        *found,
        f"{os.cpu_count()} cores, Python {platform.python_version()}",
    ]
    return f"| {' | '.join(cells)} |"


def publish(state: State) -> None:
    """Append the campaign to the table; a resumed one replaces its line."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, after = text.partition(END)
    begin = f"| {state.started} | {state.seed} |"
    lines = [line for line in before.splitlines() if not line.startswith(begin)]
    PAGE.write_text("\n".join([*lines, row(state), END]) + after, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="campaign", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="end after this number (default: 1000)")
    parser.add_argument("--hours", type=float, default=4.0, help="end after these at the latest (default: 4)")
    parser.add_argument("--seed", type=int, help="default: a new one, which is printed")
    parser.add_argument("--resume", action="store_true", help="go on with the campaign in the folder")
    parser.add_argument(
        "--variant", default="good", choices=list(VARIANTS), help="break this on purpose, to see it found"
    )
    parser.add_argument(
        "--write", action="store_true", help="append the figures to benchmarks/reliability.md"
    )
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="histories and state (default: %(default)s)"
    )
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    leave_instances()
    file = arguments.folder / "state.json"
    if arguments.resume:
        state = State.load(file)
    else:
        seed = random.SystemRandom().getrandbits(31) if arguments.seed is None else arguments.seed
        state = State(seed, time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()))
    say(f"seed {state.seed}, histories in {arguments.folder}")
    campaign = Campaign(arguments.folder, state, arguments.variant)
    # So that the servers end with it.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    with servers():
        run(campaign, arguments.kills, arguments.hours)
    if arguments.write:
        publish(state)
    say(json.dumps(asdict(state), indent=1))
    return 1 if state.found else 0


def run(campaign: Campaign, kills: int, hours: float) -> None:
    """Round by round; each is stored when it ends."""
    state = campaign.state
    while (left := kills - sum(state.kills.values())) > 0 and state.seconds < hours * 3600:
        verdict = campaign.round(min(left, KILLS_PER_ROUND))
        done = f"round {state.rounds}: {sum(state.kills.values()):,} of {kills:,} kills in {state.seconds:,.0f} s"
        say(f"{done}: {len(verdict.findings)} findings, {verdict.repeats} repeats")
        for kind, text in verdict.findings:
            say(f"  {kind}: {text}")


@contextmanager
def servers() -> Iterator[None]:
    """Those that the environment names, or else a stack of the campaign's own."""
    if all(variable in os.environ for variable in ADDRESSES.values()):
        yield
        return
    stack = Stack(PROJECT_ROOT, f"campaign-{os.getpid()}", servers=tuple(ADDRESSES))
    try:
        state = stack.up(say)
        os.environ.update({variable: state.address(name) for name, variable in ADDRESSES.items()})
        yield
    finally:
        stack.reset()


if __name__ == "__main__":
    sys.exit(main())
