"""`make demo` and `make dev`: the whole pipeline on this machine.

The demo starts a stack and Dagster, writes entries of two campaigns while sensors and drains replicate them, waits
until the replica equals the source, closes one campaign, draws it, assigns codes, queues messages, verifies the draw,
prints a summary and deletes everything (`KEEP=1` keeps it running).
"""

from __future__ import annotations

import os
import shlex
import sys
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
from regworkers_core.runtime import Runtime
from regworkers_core.selection.verifier.assemble import has_signatures
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local import processes
from regworkers_local.dagster_server import DagsterProcess
from regworkers_local.load import LoadPlan
from regworkers_local.stack import Stack, local_dir
from tools.demo.replication import replicate
from tools.demo.selection import publish, select

GIVE_UP_SECONDS = 300.0
# Slow enough that replication runs while entries are still written, changed and removed.
ENTRIES_PER_SECOND = 1000.0
# Drains of the demo end soon after the last entry, so that their reports are part of the summary.
IDLE_SECONDS = "4"
PAUSE_SECONDS = 1.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(stderr=True, highlight=False, soft_wrap=True)


@app.command()
def demo(
    entries: Annotated[int, typer.Option(min=100, help="entries over two campaigns")] = 20_000,
    planted: Annotated[
        bool, typer.Option("--planted", help="search the logs and stores for fans' data in the end")
    ] = False,
) -> None:
    """Replicate two campaigns and draw one, with live progress, and print a summary of all entries."""
    keep = os.environ.get("KEEP", "") not in ("", "0")
    instance = choose_instance(PROJECT_ROOT)
    use(instance)
    os.environ.setdefault("REGWORKERS_DRAIN__RESIDENT_IDLE_SECONDS", IDLE_SECONDS)
    # No operator types the campaign's id.
    os.environ.setdefault("REGWORKERS_SELECTION__AUTO_PUBLISH", "true")
    started = time.monotonic()
    with ExitStack() as cleanup, StopSignal().on_signals() as stop:
        stack, dagster = servers(instance, stop)
        if not keep:
            cleanup.callback(stack.reset)
            cleanup.callback(stop_dagster, dagster)
        runtime = bring_up(stack, dagster, stop)
        clean = replicate(
            runtime, LoadPlan(entries, per_second=ENTRIES_PER_SECOND), stop, console, GIVE_UP_SECONDS
        )
        clean = clean and select(runtime, stop, console, GIVE_UP_SECONDS)
        published = publish(runtime, PROJECT_ROOT / "build" / "demo") if clean else {}
        if planted:
            # Imported here, because nothing else needs it.
            from tools.demo.leaks import nothing_leaked

            clean = nothing_leaked(runtime, dagster, console) and clean
        console.print(f"{time.monotonic() - started:.0f} s in all")
        if keep:
            console.print(f"left running: Dagster at {dagster.url}; inspect it with")
            console.print(
                f"  {command(instance, 'doctor')}\nstop and delete it with\n  {command(instance, 'local reset --yes')}"
            )
    for what, path in published.items():
        console.print(f"{what}: {path.as_uri()}")
    if published:
        console.print("to look up references in the page: python3 -m http.server --directory build/demo")
        if not has_signatures():
            console.print("these receipts check no signatures: run `make verifier` before the demo for that")
    if not clean:
        raise typer.Exit(1)


@app.command()
def dev() -> None:
    """Run the stack and Dagster with sensors on, until Ctrl-C."""
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
        console.print("Ctrl-C stops everything. `regworkers load` writes some entries")
        reported: frozenset[str] = frozenset()
        while not stop.wait(PAUSE_SECONDS):
            ended = dagster.ended
            for name in sorted(ended - reported):
                console.print(_what_ended(name, dagster))
            reported = ended


def _what_ended(child: str, dagster: DagsterProcess) -> str:
    """What is missing without a child of Dagster, and how to get it back. All else is left as it is."""
    if child != "daemon":
        return (
            f"Dagster's {child} ended unexpectedly, see {dagster.log}: Ctrl-C and a new start bring it back"
        )
    start = f"DAGSTER_HOME={shlex.quote(str(dagster.home))} .venv/bin/dagster-daemon run -w workspace.yaml"
    if dagster.instance != "default":
        start = f"REGWORKERS_INSTANCE={dagster.instance} {start}"
    return (
        f"Dagster's daemon ended unexpectedly, see {dagster.log}: no sensor, schedule or queued run starts now "
        f"(docs/runbooks/scheduler.md). The servers and the UI run on. Start another one with\n  {start}"
    )


def choose_instance(root: Path) -> str:
    """`default` if it has no state, else the first free one of demo, demo-2, ..."""
    names = ["default", "demo", *(f"demo-{number}" for number in range(2, 100))]
    for name in names:
        if not (local_dir(root) / name / "state.json").exists():
            return name
    raise UsageError("no free instance for a demo: see `regworkers local reset --instance demo`")


def use(instance: str) -> None:
    """Make this process and its children use this instance."""
    os.environ["REGWORKERS_INSTANCE"] = instance


def command(instance: str, words: str) -> str:
    prefix = "" if instance == "default" else f"REGWORKERS_INSTANCE={instance} "
    return f"{prefix}.venv/bin/regworkers {words}"


class Stopped(UsageError):
    """Ctrl-C before all was up."""


def servers(instance: str, stop: StopSignal) -> tuple[Stack, DagsterProcess]:
    """The servers of an instance. Their start raises Stopped once the stop signal is set."""

    def pause(seconds: float) -> None:
        if stop.wait(seconds):
            raise Stopped("stopped")

    return Stack(PROJECT_ROOT, instance, sleep=pause), DagsterProcess(PROJECT_ROOT, instance, sleep=pause)


def stop_dagster(dagster: DagsterProcess) -> None:
    """Print a message first, because runs finish what is in flight and that takes a while."""
    console.print("stopping: Dagster and its runs, which finish what is in flight, then the servers")
    if dagster.stop():
        console.print("dagster: stopped")


def bring_up(stack: Stack, dagster: DagsterProcess, stop: StopSignal) -> Runtime:
    """Start the servers, provision, start Dagster. Raises Stopped."""
    began = time.monotonic()
    stack.up(console.print)
    runtime = Runtime.load()
    created = 0
    for each in provision(runtime):
        created += each.outcome == "created"
        if stop.is_set:
            raise Stopped("stopped")
    console.print(f"provisioned: {created} resources created")
    dagster.start()
    dagster.wait_ready()
    console.print(f"Dagster at {dagster.url} ({time.monotonic() - began:.0f} s)")
    return runtime


def main() -> None:
    """Run the command. A known failure is one line and exit code 2."""
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
