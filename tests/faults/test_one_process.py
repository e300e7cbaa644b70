"""Two residents of the save drain as processes of their own; only one meets the fault. The other one takes over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from regworkers_core.drains.heartbeat import Beat, beats
from regworkers_core.runtime import Runtime
from tests.faults.crash import recover
from tests.faults.story import Story
from tests.support.drains import run
from tests.support.fault_proxy import Fault, FaultProxy, Rule, fault_proxy, proxied
from tests.support.runtimes import address
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow
# What the operations manual promises: of a fault, and of a call that hangs beyond its time-out.
TAKEN_OVER_SECONDS = 10.0
HANGS_SECONDS = 3.0
# Of MongoDB, with the two seconds each in which a server is chosen and connected.
LONGEST_CALL_SECONDS = HANGS_SECONDS + 4.0
BACK_SECONDS = 60.0
ENTRIES = 20


@dataclass
class Pair:
    """Two residents: `first` reaches its servers through proxies, the other one directly."""

    runtime: Runtime
    around: ExitStack
    folder: Path
    proxies: dict[str, FaultProxy] = field(default_factory=dict)
    residents: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *, behind: bool) -> None:
        prefix, found = "REGWORKERS_", {each: address(each) for each in ("aws", "mongo")}
        if behind:
            for each, at in found.items():
                self.proxies[each] = self.around.enter_context(fault_proxy(each, at))
            found = {each: proxied(at, self.proxies[each]) for each, at in found.items()}
        environment = {
            **{variable: value for variable, value in os.environ.items() if not variable.startswith(prefix)},
            f"{prefix}RESOURCE_PREFIX": self.runtime.names.prefix,
            f"{prefix}INSTANCE": "none",
            f"{prefix}AWS__ENDPOINT_URL": found["aws"],
            f"{prefix}AWS__ACCESS_KEY_ID": "test",
            f"{prefix}AWS__SECRET_ACCESS_KEY": "test",
            f"{prefix}AWS__READ_TIMEOUT_SECONDS": str(HANGS_SECONDS),
            f"{prefix}MONGO__URI": found["mongo"],
            f"{prefix}MONGO__SOCKET_TIMEOUT_SECONDS": str(HANGS_SECONDS),
            f"{prefix}DRAIN__RESIDENT": "always",
            f"{prefix}OBSERVABILITY__CLOUDWATCH_ENABLED": "false",
        }
        program = str(Path(sys.executable).parent / "regworkers")
        child = subprocess.Popen(
            [program, "drain", "save", "--resident"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=self.around.enter_context((self.folder / f"{name}.log").open("wb")),
        )
        self.residents[name] = child
        self.around.callback(child.wait)
        self.around.callback(child.kill)

    def role(self, name: str) -> str:
        return next((each.role for each in self.rows() if _pid(each) == self.residents[name].pid), "")

    def rows(self) -> list[Beat]:
        return beats(self.runtime.heartbeats, "save")

    def roles(self) -> list[str]:
        return sorted(self.role(name) for name in self.residents)


def _pid(beat: Beat) -> int:
    return int(beat.process.rpartition(":")[2])


@pytest.fixture
def pair(runtime: Runtime, tmp_path: Path) -> Iterator[Pair]:
    with ExitStack() as around:
        yield Pair(runtime, around, tmp_path)


@pytest.fixture
def both(pair: Pair) -> Pair:
    pair.start("first", behind=True)
    wait_until(lambda: pair.role("first") == "working", what="the first works")
    pair.start("second", behind=False)
    wait_until(lambda: pair.roles() == ["standby", "working"], what="the second stands by")
    return pair


def entries(pair: Pair) -> Story:
    """Keys that wait on the queue."""
    story = Story(pair.runtime)
    for number in range(ENTRIES):
        story.put(f"e{number}")
    run(pair.runtime, "enqueue")
    return story


def saved(pair: Pair) -> bool:
    return pair.runtime.replica.estimate() >= ENTRIES


def cut(pair: Pair, server: str, fault: Fault = Fault.REFUSED) -> None:
    pair.proxies[server].rules = [Rule(fault)]
    pair.proxies[server].cut_connections()


def heal(pair: Pair) -> None:
    for proxy in pair.proxies.values():
        proxy.rules = ()
        proxy.cut_connections()


def takes_over(pair: Pair, story: Story, within_seconds: float) -> float:
    began = time.monotonic()
    wait_until(lambda: pair.role("second") == "working", seconds=within_seconds, what="the standby works")
    wait_until(lambda: saved(pair), seconds=within_seconds, what="all entries are saved")
    return time.monotonic() - began


def is_whole_again(pair: Pair) -> None:
    wait_until(
        lambda: pair.roles() == ["standby", "working"],
        seconds=BACK_SECONDS,
        what=f"one works and one stands by, not {pair.roles()}",
    )


@pytest.mark.parametrize(
    ("server", "fault"),
    [("mongo", Fault.REFUSED), ("mongo", Fault.HANGING), ("aws", Fault.REFUSED), ("aws", Fault.HANGING)],
)
def test_the_standby_takes_over_from_one_that_reaches_a_server_no_more_and_that_one_comes_back(
    both: Pair, server: str, fault: Fault, record_property: Callable[[str, object], None]
) -> None:
    cut(both, server, fault)
    began = time.monotonic()
    story = entries(both)
    hangs = LONGEST_CALL_SECONDS * (fault is Fault.HANGING)
    takes_over(both, story, TAKEN_OVER_SECONDS + hangs)
    record_property(
        "shown", f"{server} {fault} for one process: taken over in {time.monotonic() - began:.1f} s"
    )
    heal(both)
    began = time.monotonic()
    is_whole_again(both)
    record_property("shown", f"whole again in {time.monotonic() - began:.1f} s")
    for child in both.residents.values():
        child.send_signal(signal.SIGTERM)
    recover(both.runtime)
    verdict = story.judge()
    assert verdict.clean, verdict


def test_one_that_never_got_ready_holds_up_no_other(pair: Pair) -> None:
    pair.start("first", behind=True)
    cut(pair, "mongo")
    wait_until(lambda: pair.rows(), what="the first shows life")
    story = entries(pair)
    pair.start("second", behind=False)
    wait_until(lambda: pair.role("second"), what="the second shows life")
    takes_over(pair, story, TAKEN_OVER_SECONDS)
    heal(pair)
    is_whole_again(pair)


def test_the_standby_takes_over_from_one_that_was_killed(both: Pair) -> None:
    both.residents["first"].kill()
    story = entries(both)
    takes_over(both, story, TAKEN_OVER_SECONDS)


def test_one_that_was_frozen_stands_by_or_works_again_and_never_both(both: Pair) -> None:
    both.residents["first"].send_signal(signal.SIGSTOP)
    story = entries(both)
    takes_over(both, story, TAKEN_OVER_SECONDS)
    both.residents["first"].send_signal(signal.SIGCONT)
    is_whole_again(both)
