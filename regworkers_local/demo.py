"""`make demo` and `make dev`: the whole pipeline on this machine, seen working.

The demo starts a stack and Dagster, writes two campaigns' entries while sensors and drains replicate them,
waits until replica equals source, closes one campaign, draws it, assigns codes and queues messages, verifies the
draw, prints what happened, and leaves nothing behind (`KEEP=1` leaves all running).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.engine.stop import StopSignal
from regworkers_core.infrastructure.provision import provision
from regworkers_core.observability.logs import configure_logging
from regworkers_core.replication.reconcile import reconcile
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local import processes
from regworkers_local.dagster_server import DagsterProcess
from regworkers_local.demo_report import Progress, lag_of_replica, summary
from regworkers_local.demo_selection import select
from regworkers_local.drain_runs import DrainRuns
from regworkers_local.load import Loader, LoadPlan
from regworkers_local.stack import Stack, local_dir

GIVE_UP_SECONDS = 300.0
# Slow enough that replication runs while entries are still written, changed and removed.
ENTRIES_PER_SECOND = 1000.0
# Drains of the demo leave soon after the last entry, so that their reports are part of the summary.
IDLE_SECONDS = "4"
PAUSE_SECONDS = 1.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(stderr=True, highlight=False, soft_wrap=True)


@app.command()
def demo(
    entries: Annotated[int, typer.Option(min=100, help="entries over two campaigns")] = 20_000,
    planted: Annotated[
        bool, typer.Option("--planted", help="look in the end whether a fan's data is where it must not be")
    ] = False,
) -> None:
    """Replicate two campaigns and draw one, end to end, with live progress; print what became of every entry."""
    keep = os.environ.get("KEEP", "") not in ("", "0")
    instance = choose_instance(PROJECT_ROOT)
    use(instance)
    os.environ.setdefault("REGWORKERS_DRAIN__RESIDENT_IDLE_SECONDS", IDLE_SECONDS)
    # Nobody is there to type the campaign's id.
    os.environ.setdefault("REGWORKERS_SELECTION__AUTO_PUBLISH", "true")
    started = time.monotonic()
    with ExitStack() as cleanup, StopSignal().on_signals() as stop:
        stack, dagster = servers(instance, stop)
        if not keep:
            cleanup.callback(stack.reset)
            cleanup.callback(stop_dagster, dagster)
        runtime = bring_up(stack, dagster, stop)
        clean = replicate(runtime, dagster, LoadPlan(entries, per_second=ENTRIES_PER_SECOND), stop)
        clean = clean and select(runtime, stop, console, GIVE_UP_SECONDS)
        if planted:
            # Late, for only this needs it.
            from regworkers_local.demo_leaks import nothing_leaked

            clean = nothing_leaked(runtime, dagster, console) and clean
        console.print(f"{time.monotonic() - started:.0f} s in all")
        if keep:
            console.print(f"left running: Dagster at {dagster.url}; look around with")
            console.print(
                f"  {command(instance, 'doctor')}\nstop and delete it with\n  {command(instance, 'local reset --yes')}"
            )
    if not clean:
        raise typer.Exit(1)


@app.command()
def dev() -> None:
    """Stack and Dagster up, sensors on, until Ctrl-C."""
    instance = os.environ.get("REGWORKERS_INSTANCE") or "default"
    use(instance)
    with ExitStack() as cleanup, StopSignal().on_signals() as stop:
        stack, dagster = servers(instance, stop)
        if dagster.running:
            raise UsageError(
                f"instance {instance} runs already, Dagster at {dagster.url}: stop it with "
                f"`{command(instance, 'local down')}`, or choose another with REGWORKERS_INSTANCE=dev2 make dev"
            )
        cleanup.callback(stack.down, console.print)
        cleanup.callback(stop_dagster, dagster)
        try:
            bring_up(stack, dagster, stop)
        except Stopped:
            return
        console.print("Ctrl-C stops everything. Some entries: `regworkers load`")
        while not stop.wait(PAUSE_SECONDS):
            if not dagster.running:
                raise UsageError(f"Dagster ended by itself; see {dagster.log}")


def choose_instance(root: Path) -> str:
    """`default` if nobody uses it or has data in it, else the first free of demo, demo-2, ..."""
    names = ["default", "demo", *(f"demo-{number}" for number in range(2, 100))]
    for name in names:
        if not (local_dir(root) / name / "state.json").exists():
            return name
    raise UsageError("no free instance for a demo: see `regworkers local reset --instance demo`")


def use(instance: str) -> None:
    """This process and its children talk to this instance."""
    os.environ["REGWORKERS_INSTANCE"] = instance


def command(instance: str, words: str) -> str:
    prefix = "" if instance == "default" else f"REGWORKERS_INSTANCE={instance} "
    return f"{prefix}.venv/bin/regworkers {words}"


class Stopped(UsageError):
    """Ctrl-C before all was up."""


def servers(instance: str, stop: StopSignal) -> tuple[Stack, DagsterProcess]:
    """Both of an instance; their start is over with Stopped as soon as the stop signal comes."""

    def pause(seconds: float) -> None:
        if stop.wait(seconds):
            raise Stopped("stopped")

    return Stack(PROJECT_ROOT, instance, sleep=pause), DagsterProcess(PROJECT_ROOT, instance, sleep=pause)


def stop_dagster(dagster: DagsterProcess) -> None:
    """Says so first: runs finish what is in flight, and nobody should take the silence for a hang."""
    console.print("stopping: Dagster and its runs, which finish what is in flight, then the servers")
    if dagster.stop():
        console.print("dagster: stopped")


def bring_up(stack: Stack, dagster: DagsterProcess, stop: StopSignal) -> Runtime:
    """Servers, tables and topics, Dagster: in this order. Raises Stopped."""
    began = time.monotonic()
    stack.up(console.print)
    runtime = Runtime.load()
    created = 0
    for each in provision(runtime):
        created += each.outcome == "created"
        if stop.is_set:
            raise Stopped("stopped")
    console.print(f"provisioned: {created} things created")
    dagster.start()
    dagster.wait_ready()
    console.print(f"Dagster at {dagster.url} ({time.monotonic() - began:.0f} s)")
    return runtime


def replicate(runtime: Runtime, dagster: DagsterProcess, plan: LoadPlan, stop: StopSignal) -> bool:
    """Write the plan and watch it arrive; True when replica equals source in the end."""
    runs = DrainRuns(dagster.home, time.time())
    loader = Loader(runtime, plan)
    first_seconds = await_first(runtime, loader, stop)
    progress = Progress(runtime, loader, plan)
    failure: list[Exception] = []

    def write() -> None:
        try:
            loader.run(stop, progress.note)
        except (Failure, UsageError) as error:
            failure.append(error)
            stop.set()

    writer = threading.Thread(target=write, name="loader")
    writer.start()
    give_up = time.monotonic() + GIVE_UP_SECONDS
    with progress.live(console):
        while not stop.wait(PAUSE_SECONDS) and time.monotonic() < give_up:
            if progress.look() and not writer.is_alive():
                break
    writer.join()
    if failure:
        raise failure[0]
    if stop.is_set:
        raise UsageError("stopped")
    console.print("all arrived; comparing both sides and waiting for the drains to leave")
    result = reconcile(runtime)
    while runs.active() and time.monotonic() < give_up and not stop.wait(PAUSE_SECONDS):
        pass
    dead = runtime.queue(runtime.names.dead_letter_queue(runtime.names.replication_queue)).depth().total
    table, adds_up = summary(
        loader.loaded,
        runs.counts(),
        result.totals,
        lag_of_replica(runtime),
        progress.finished - progress.started,
        dead,
        first_seconds,
    )
    Console(soft_wrap=True).print(table)
    if not result.clean:
        console.print("replica and source differ: `regworkers reconcile` names the entries")
    if not adds_up:
        console.print("the numbers do not add up")
    return result.clean and adds_up


def await_first(runtime: Runtime, loader: Loader, stop: StopSignal) -> float:
    """Seconds from the first entry on an idle system to its replica: a sensor's tick and two runs' starts."""
    began = time.monotonic()
    key = loader.insert_first()
    console.print("one entry written; waiting for sensors and drains to bring it over")
    while not runtime.replica.get([key]):
        if stop.wait(0.2):
            raise UsageError("stopped")
        if time.monotonic() - began > GIVE_UP_SECONDS:
            raise UsageError("the first entry did not arrive; look at the runs in the Dagster UI")
    seconds = time.monotonic() - began
    console.print(f"it arrived after {seconds:.1f} s; now the rest")
    return seconds


def main() -> None:
    """Every known trouble is one line and exit code 2."""
    # Dagster's storage folders are relative to the project's root.
    os.chdir(PROJECT_ROOT)
    configure_logging("ERROR", human=sys.stderr.isatty())
    try:
        with processes.reaping():
            app()
    except (UsageError, Failure) as error:
        console.print(str(error), markup=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
