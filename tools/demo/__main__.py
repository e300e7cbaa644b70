"""`make demo` and `make dev`: the whole pipeline on this machine.

The demo starts a stack and Dagster, writes entries of two campaigns while sensors and drains replicate them, waits
until the replica equals the source and each entry of one campaign is in its public tree, closes that campaign, draws
it, assigns codes, queues messages, verifies the draw, lets the seats pass on whose codes no one used, prints summaries
and deletes everything (`KEEP=1` keeps it running).
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.live import Live

from fairdraw.terms import OWN_BEACON
from fairdraw.verifier.assemble import has_signatures
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.engine.stop import StopSignal
from regworkers_core.infrastructure.provision import provision
from regworkers_core.observability.logs import configure_logging
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT, Settings, load_settings
from regworkers_local import processes
from regworkers_local.dagster_server import DagsterProcess
from regworkers_local.load import LoadPlan
from regworkers_local.servers import SERVERS
from regworkers_local.stack import Stack
from tools.demo.life import LIFE_SECONDS, Console, alive, watching
from tools.demo.registrations import confirm
from tools.demo.replication import replicate
from tools.demo.rounds import pass_seats_on
from tools.demo.selection import CAMPAIGN, publish, select

GIVE_UP_SECONDS = 300.0
# Slow enough that replication runs while entries are still written, changed and removed.
ENTRIES_PER_SECOND = 1000.0
# Drains of the demo end soon after the last entry, so that their reports are part of the summary.
IDLE_SECONDS = "4"

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
    os.environ.setdefault("REGWORKERS_DRAIN__RESIDENT_IDLE_SECONDS", IDLE_SECONDS)
    # No operator types the campaign's id.
    os.environ.setdefault("REGWORKERS_SELECTION__AUTO_PUBLISH", "true")
    started = time.monotonic()
    with ExitStack() as cleanup, StopSignal().on_signals() as stop:
        instance, owner = choose_instance(PROJECT_ROOT)
        cleanup.enter_context(owner)
        use(instance)
        stack, dagster = servers(instance, stop, given_by(load_settings()))
        # Before anything is to be stopped in the end.
        dagster.refuse_strangers()
        cleanup.enter_context(alive(console))
        if not keep:
            cleanup.callback(delete, stack, dagster)
        runtime = bring_up(stack, dagster, stop)
        confirmations = stack.folder / "confirmations"
        with watching(dagster, stop):
            clean = replicate(
                runtime, LoadPlan(entries, per_second=ENTRIES_PER_SECOND), stop, console, GIVE_UP_SECONDS
            )
            clean = clean and confirm(runtime, confirmations, stop, console, GIVE_UP_SECONDS)
            clean = clean and select(runtime, dagster, stop, console, GIVE_UP_SECONDS)
        published = publish(runtime, PROJECT_ROOT / "build" / "demo", confirmations, console) if clean else {}
        clean = clean and pass_seats_on(runtime, CAMPAIGN.campaign_id, stop, console, GIVE_UP_SECONDS)
        if planted:
            # Imported here, because nothing else needs it.
            from tools.demo.leaks import nothing_leaked

            clean = nothing_leaked(runtime, dagster, console) and clean
        console.print(f"{time.monotonic() - started:.0f} s in all")
        if keep:
            if published:
                console.print(f"the public page beside the UI: {dagster.url}/{public_path(published)}")
            console.print(f"left running: Dagster at {dagster.url}; inspect it with")
            console.print(
                f"  {command(instance, 'doctor')}\nstop and delete it with\n  {command(instance, 'local reset --yes')}"
            )
    for what, path in published.items():
        # Pages are for a browser, the others for a command.
        where = path.as_uri() if path.suffix == ".html" else shlex.quote(str(path))
        console.print(f"{what}: {where}", markup=False)
    if published:
        console.print(f"kept: {', '.join(published)} in build/demo, until the next demo")
        console.print(
            f"the trust file names {OWN_BEACON}, and a witness of this machine: in production others run both"
        )
        console.print(
            "to look up references in the page, and to check confirmations:\n  python3 -m http.server --bind 127.0.0.1"
            f" --directory build/demo\n  http://127.0.0.1:8000/{public_path(published)}"
        )
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
        cleanup.enter_context(stack.own("make dev"))
        if dagster.alive:
            raise UsageError(
                f"instance {instance} runs already, Dagster at {dagster.url}: stop it with "
                f"`{command(instance, 'local down')}`, or choose another with REGWORKERS_INSTANCE=dev2 make dev"
            )
        # Before anything is to be stopped in the end.
        dagster.refuse_strangers()
        cleanup.enter_context(alive(console))
        cleanup.callback(keep_data, stack, dagster)
        try:
            runtime = bring_up(stack, dagster, stop)
        except Stopped:
            return
        load = command(instance, "load --entries 5000")
        console.print(
            "Ctrl-C stops everything and keeps the data. Made-up entries: *Load entries* on the desk, or\n"
            f"  {load}"
        )
        with watching(dagster, stop):
            show_life(runtime, stop)


def show_life(runtime: Runtime, stop: StopSignal) -> None:
    """Until `stop`, what the replica has and what waits for it: one changing line on a terminal, lines elsewhere."""
    with (
        Live(console=console, auto_refresh=False, transient=True)
        if console.is_terminal
        else nullcontext() as live
    ):
        while not stop.wait(LIFE_SECONDS):
            try:
                queue = runtime.queue(runtime.names.replication_queue).depth().total
                seen = f"{runtime.replica.estimate():,} entries in the replica, {queue:,} messages wait"
            except (Failure, UsageError) as failure:
                seen = f"a server does not answer: {failure}"
            line = f"{time.strftime('%H:%M:%S')} up: {seen}"
            console.seen()
            if live is None:
                console.print(line, markup=False)
            else:
                live.update(line, refresh=True)


def public_path(published: Mapping[str, Path]) -> Path:
    """Where the public page is, seen from any host of the public files."""
    return published["public page"].relative_to(PROJECT_ROOT / "build" / "demo")


def choose_instance(root: Path) -> tuple[str, BinaryIO]:
    """The first of `default`, demo, demo-2, ... without state and without another parent, and the lock on it."""
    for name in ["default", "demo", *(f"demo-{number}" for number in range(2, 100))]:
        stack = Stack(root, name)
        if not stack.known:
            with suppress(UsageError):
                owner = stack.own("make demo")
                if not stack.known:
                    return name, owner
                owner.close()
    raise UsageError("no free instance for a demo: see `regworkers local reset --instance demo`")


def use(instance: str) -> None:
    """Make this process and its children use this instance."""
    os.environ["REGWORKERS_INSTANCE"] = instance


def command(instance: str, words: str) -> str:
    prefix = "" if instance == "default" else f"REGWORKERS_INSTANCE={instance} "
    return f"{prefix}.venv/bin/regworkers {words}"


class Stopped(UsageError):
    """Ctrl-C before all was up."""


def given_by(settings: Settings) -> set[str]:
    """The servers that a new stack gives up, because the settings have the address of another. All others need AWS, and
    SQS is only a part of that.
    """
    return {"kafka"} if settings.kafka.bootstrap else set()


def servers(instance: str, stop: StopSignal, given: Collection[str] = ()) -> tuple[Stack, DagsterProcess]:
    """The servers of an instance but those that are given. Their start raises Stopped once the stop signal is set."""

    def pause(seconds: float) -> None:
        if stop.wait(seconds):
            raise Stopped("stopped")

    stack = Stack(PROJECT_ROOT, instance, servers=SERVERS.keys() - given, sleep=pause)
    return stack, DagsterProcess(PROJECT_ROOT, instance, sleep=pause)


STOPPING = "stopping: Dagster and its runs, which finish what is in flight, then the servers"


def keep_data(stack: Stack, dagster: DagsterProcess) -> None:
    """Stop all, and say what the next start finds. A message comes first, because runs finish what is in flight."""
    console.print(STOPPING)
    if dagster.stop():
        console.print("dagster: stopped")
    stack.down(console.print)
    reset = command(stack.instance, "local reset")
    console.print(
        f"kept: the data of instance {stack.instance} in {shown(stack.folder)}, runs and events of Dagster in "
        f"{shown(dagster.storage)}; the next start goes on with them, and `{reset}` deletes them"
    )


def delete(stack: Stack, dagster: DagsterProcess) -> None:
    """Stop all, delete what the demo wrote, and say so."""
    console.print(STOPPING)
    if dagster.reset():
        console.print("dagster: stopped")
    stack.reset(console.print)
    console.print(
        f"deleted: all data of instance {stack.instance} ({shown(stack.folder)}) and Dagster's "
        f"({shown(dagster.storage)})"
    )


def shown(path: Path) -> str:
    """A path as seen from the project's root."""
    return str(path.relative_to(PROJECT_ROOT) if path.is_relative_to(PROJECT_ROOT) else path)


def bring_up(stack: Stack, dagster: DagsterProcess, stop: StopSignal) -> Runtime:
    """Start the servers, provision, start Dagster. Raises Stopped."""
    began = time.monotonic()
    console.print(
        f"instance {stack.instance} {'goes on with its data' if stack.known else 'is new'}: {shown(stack.folder)}"
    )
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
    console.print(
        f"Dagster at {dagster.url}, pages of campaigns at {dagster.url}/desk ({time.monotonic() - began:.0f} s)"
    )
    if dagster.home != PROJECT_ROOT:
        console.print("`dg launch` and `regworkers` reach it, in a second terminal, after")
        console.print(
            f"  export REGWORKERS_INSTANCE={stack.instance} DAGSTER_HOME={shlex.quote(str(dagster.home))}"
        )
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
