"""`regworkers draw ...`: run a draw and wait, draw a further phase, export the artefacts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.text import Text

from fairdraw import scheduling
from regworkers_core.adapters.mongo.draws import PhaseRecord, PhaseStatus
from regworkers_core.cli import draw_log, draw_proof, draw_report
from regworkers_core.cli.changes import ask, at_terminal, audited, new_run_id
from regworkers_core.cli.draw_report import publish_hash_text, read_outline, steps_table
from regworkers_core.cli.options import numbers, seats_of_segments
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, progress
from regworkers_core.domain.campaign import Reserve
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import ACCEPTABLE, DrawBusy, require_word
from regworkers_core.drains.runner import drain_limits, run_drain
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.terms import TopUp, parse_strikes

if TYPE_CHECKING:
    from regworkers_core.selection.draw.gate import AcceptedFindings
    from regworkers_core.selection.draw_run import DrawRun, StepResult

Yes = Annotated[bool, typer.Option("--yes", help="publish without a prompt")]
Strikes = Annotated[Path | None, typer.Option(help="file with a line ref|REASON for each entry to strike")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="assign codes here until the markets complete")]


app = typer.Typer(no_args_is_help=True)
for steps in (draw_report, draw_proof, draw_log):
    app.add_typer(steps.app)


@app.command("run")
def run_command(
    campaign_id: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="id or slug")],
    yes: Yes = False,
    strikes: Strikes = None,
    accept_finding: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"publish although the gate found this ({', '.join(ACCEPTABLE)}); repeatable",
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="why it is accepted; published with it")] = "",
    wait: Wait = True,
    form: FormatOption = Format.TEXT,
) -> None:
    """Draw a closed campaign and wait until its codes are assigned.

    The steps are freeze, commit, seed, rank, allocate, report and publish. Continues where an earlier run stopped.
    Prompts for `<campaignId>:<phase>` before it publishes; --yes skips the prompt. Exits 1 if it cannot prompt.
    """
    from regworkers_core.selection.draw.gate import AcceptedFindings

    runtime = Runtime.load()
    struck = () if strikes is None else parse_strikes(_text(strikes))
    accept = AcceptedFindings.of(accept_finding or (), reason)
    campaign_id = runtime.campaigns.id_of(campaign_id)
    arguments = {
        "yes": yes,
        "strikes": len(struck),
        "accepts": list(accept.findings),
        "reason": accept.reason,
    }
    with audited(runtime, "draw run", campaign_id, arguments) as result:
        _draw(runtime, campaign_id, None, struck, yes, wait, form, result, accept)


@app.command("top-up")
def top_up_command(
    campaign_id: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="id or slug")],
    reason: Annotated[str, typer.Option(help="published with the phase")],
    capacity: Annotated[
        list[str] | None, typer.Option(help="MARKET=N, the new total of a market; repeatable")
    ] = None,
    reserve: Annotated[
        list[str] | None, typer.Option(help="MARKET:SEGMENT=N among the new seats; repeatable")
    ] = None,
    strikes: Strikes = None,
    waitlist: Annotated[int | None, typer.Option(min=0, help="new size of the waiting list")] = None,
    yes: Yes = False,
    wait: Wait = True,
    form: FormatOption = Format.TEXT,
) -> None:
    """Draw a further phase: more seats, the same order, winners keep theirs.

    No winner moves to a market that they would have preferred: stating true preferences is optimal within a phase, not
    over several. The reason is published, so that everyone can see why seats were added.
    """
    from regworkers_core.selection.draw.top_up import open_phase

    runtime = Runtime.load()
    request = TopUp(
        capacities=numbers("--capacity", capacity or ()),
        reserves={
            market: tuple(Reserve(segment, seats) for segment, seats in segments.items())
            for market, segments in seats_of_segments("--reserve", reserve or ()).items()
        },
        strikes=() if strikes is None else parse_strikes(_text(strikes)),
        reason=reason,
        waitlist_size=waitlist,
        keep_waitlist=waitlist is None,
    )
    campaign_id = runtime.campaigns.id_of(campaign_id)
    arguments = {
        "capacities": dict(request.capacities),
        "strikes": len(request.strikes),
        "reason": reason,
        "yes": yes,
    }
    with audited(runtime, "draw top-up", campaign_id, arguments) as result:
        phase = open_phase(runtime, campaign_id, request, run_id=new_run_id())
        result["phase"] = phase
        _draw(runtime, campaign_id, phase, (), yes, wait, form, result)


@app.command("export")
def export_command(
    campaign_id: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="id or slug")],
    folder: Path,
    form: FormatOption = Format.TEXT,
) -> None:
    """Copy the artefacts of every phase to FOLDER/phase-<n>/."""
    from regworkers_core.selection.public.source import export_phases

    runtime = Runtime.load()
    campaign_id = runtime.campaigns.id_of(campaign_id)
    record = runtime.draws.get(campaign_id)
    if record is None:
        raise UsageError(f"{campaign_id} is not drawn yet: run `regworkers draw run {campaign_id}`")
    written = export_phases(runtime.objects, record, folder)
    pending = record.not_confirmed
    document = {
        "campaignId": campaign_id,
        "folder": str(folder),
        "files": written,
        "notConfirmed": pending,
    }
    lines = [*(str(folder / name) for name in written), f"{len(written)} files"]
    answer(document, form, "\n".join([*lines, *(f"phase {each} is not confirmed yet" for each in pending)]))


def _draw(
    runtime: Runtime,
    campaign_id: str,
    phase: int | None,
    strikes: tuple[tuple[str, str], ...],
    yes: bool,
    wait: bool,
    form: Format,
    result: dict[str, Any],
    accept: AcceptedFindings | None = None,
) -> None:
    """Run the steps. `result` gets the state of each, for the audit log."""
    from regworkers_core.eligibility.judging import judge_campaign
    from regworkers_core.replication.settled import settled
    from regworkers_core.selection.assign.markets import blocked_lines
    from regworkers_core.selection.draw.gate import GateClosed, NotAccepted, NotSettled
    from regworkers_core.selection.draw_run import DrawRun

    done: dict[str, Any] = {}
    with StopSignal().on_signals() as stop:
        with progress("", "draw", total=8) as show:
            run = DrawRun(
                runtime,
                campaign_id,
                run_id=new_run_id(),
                settled=lambda campaign: settled(runtime, campaign, on_phase=show.tell),
                judge=partial(judge_campaign, runtime),
                phase=phase,
                strikes=strikes,
                stop=stop,
                on_progress=show.tell,
                accept=accept,
            )
            try:
                for step in run.steps(unasked=yes):
                    show(advance=1, description=step.name)
                    done[step.name] = {"state": step.state, **step.facts}
                    result[step.name] = step.state
                    if step.name == "commit" and (step.state == "done" or step.facts.get("dueAt")):
                        Console(stderr=True, soft_wrap=True).print(Text(publish_hash_text(step.facts)))
            except DrawBusy as busy:
                answer({"campaignId": campaign_id, "state": "busy", "message": str(busy)}, form, str(busy))
                return
            except (GateClosed, NotAccepted) as refused:
                findings = [each.as_fields() for each in refused.findings]
                document = {"campaignId": campaign_id, "state": "refused", "findings": findings}
                answer(document, form, str(refused))
                raise typer.Exit(FINDING) from None
            except NotSettled as failure:
                document = {"campaignId": campaign_id, "state": "not settled", "open": list(failure.findings)}
                answer(
                    document, form, "\n".join([f"{campaign_id} is not replicated yet:", *failure.findings])
                )
                raise typer.Exit(FINDING) from None
        last = next(reversed(done.values()))
        waits = last["state"] == "awaiting" and "publish" in done
        left = [each for each in last.get("findings", ()) if not each["accepted"]] if waits else []
        asked = waits and not left and at_terminal()
        outline = None
        if "report" in done and not asked and form is Format.TEXT:
            outline = read_outline(runtime, campaign_id, run.phase)
        if asked:
            last = _ask(runtime, run, done)
            result["publish"] = done["publish"]["state"]
        elif left:
            findings_text = "; ".join(f"{each['name']}: {each['detail']}" for each in left)
            names = " ".join(f"--accept-finding {each['name']}" for each in left)
            last["message"] = (
                f"nothing is published yet. {findings_text}. To accept and publish it with a reason:"
                f" `regworkers draw run {campaign_id} {names} --reason TEXT`"
            )
        elif waits:
            last["message"] = (
                f"nothing is published yet: `regworkers draw run {campaign_id}` prompts for {last['confirm']} at a"
                " terminal; input from a pipe is not read"
            )
        if last["state"] == "awaiting" or stop.is_set:
            message = last.pop("message", None)
            _tell(campaign_id, done, outline, [message] if message else [], form)
            raise typer.Exit(FINDING)
        record = _assigned(runtime, campaign_id, run.phase, stop) if wait else None
    if record is not None:
        done["publish"] |= {"status": record.status.value, "markets": dict(record.markets)}
    waiting = blocked_lines(campaign_id, record.markets if record else {})
    _tell(campaign_id, done, outline, waiting, form)
    if wait and (record is None or not record.reached(PhaseStatus.COMPLETED)):
        raise typer.Exit(FINDING)


def _ask(runtime: Runtime, run: DrawRun, done: dict[str, Any]) -> dict[str, Any]:
    """Show the report and prompt for the word that publishes it."""
    campaign_id, awaiting = run.campaign_id, done["publish"]
    console = Console(stderr=True, soft_wrap=True)
    console.print(read_outline(runtime, campaign_id, run.phase))
    console.print(Text(f"with plots: `regworkers draw report {campaign_id} --page report.html`"))
    expected = awaiting["confirm"]
    try:
        typed = ask(f"type {expected} to assign codes and queue messages")
        require_word(typed, expected)
    except UsageError as refused:
        again = f"`regworkers draw run {campaign_id}` prompts again and draws nothing again"
        return {**awaiting, "message": f"{refused}; {again}"}
    step: StepResult = run.publish(typed)
    done["publish"] = {"state": step.state, **step.facts}
    published: dict[str, Any] = done["publish"]
    return published


def _assigned(runtime: Runtime, campaign_id: str, phase: int, stop: StopSignal) -> PhaseRecord | None:
    """Work on the selection queue until the markets of the phase complete, or nothing moves any more. Other drains may
    work on it at the same time.
    """
    from regworkers_core.selection.drains import SELECTIONS

    limits = drain_limits(runtime.settings, SELECTIONS, idle_seconds=1.0, max_seconds=3600.0)
    with progress("chunks", "codes") as show:

        def received(report: DrainReport) -> None:
            show(completed=report.counts["received"])

        while True:
            before = _phase(runtime, campaign_id, phase)
            if before is None or before.reached(PhaseStatus.COMPLETED) or stop.is_set:
                return before
            report = run_drain(runtime, SELECTIONS, limits, stop=stop, on_progress=received)
            after = _phase(runtime, campaign_id, phase)
            # Chunks that another drain holds return to the queue; with nothing in flight no drain works.
            idle = not runtime.queue(runtime.names.selection_queue).depth().total
            if after is None or report.ended == "dependency_down":
                return after
            if idle and after.markets == before.markets:
                return after
            scheduling.sleep(0.2)


def _phase(runtime: Runtime, campaign_id: str, phase: int) -> PhaseRecord | None:
    record = runtime.draws.get(campaign_id)
    return None if record is None else record.phases.get(phase)


def _tell(
    campaign_id: str,
    done: dict[str, Any],
    outline: RenderableType | None,
    waiting: list[str],
    form: Format,
) -> None:
    """Print the steps and a short report, and below what the draw waits for: a table would break commands up."""
    parts: list[RenderableType] = [steps_table(campaign_id, done)]
    parts += [outline] if outline is not None else []
    parts += [Text(line) for line in waiting]
    answer({"campaignId": campaign_id, "steps": done, "waiting": waiting}, form, Group(*parts))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
