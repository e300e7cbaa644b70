"""The last step of the demo: codes expire, their issuer says which were used, and the seats of the others pass on.

Fans have a day to use their codes, which no demo waits for. So the end of the codes is set back here, and what the gate
finds of that is accepted by its name, as an operator would.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.table import Table

from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseStatus
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import EARLY_UNCLAIMED, NON_WINNERS, DrawBusy
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.runner import DrainSpec, drain_limits, run_drain
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.draws import draw_run
from regworkers_core.runtime import Runtime
from regworkers_core.selection.codes.issuing import write_for_issuer
from regworkers_core.selection.drains import NOTIFICATIONS, REDEEM, SELECTIONS
from regworkers_core.selection.draw.changes import open_phase
from regworkers_core.selection.draw.gate import AcceptedFindings
from regworkers_core.selection.draw.passing_on import claim
from regworkers_local.issuer import OF_THIS_MACHINE, read_export
from tools.demo.life import Console
from tools.demo.replication import Sums
from tools.demo.selection import is_sent, replayed

_WHY = "a demo does not wait for a day"
_EXPIRED_SECONDS = 3600.0
_PAUSE_SECONDS = 0.2
_DRAIN_SECONDS = 30.0


def pass_seats_on(
    runtime: Runtime, campaign_id: str, stop: StopSignal, console: Console, give_up_seconds: float
) -> bool:
    """One round of a campaign that is drawn, from the end of its codes to the last queued message.

    True if every number adds up and the draw verifies with its round. Raises UsageError if it does not end in time.
    """
    began = time.monotonic()
    give_up = began + give_up_seconds

    def work(spec: DrainSpec[Any], is_done: Callable[[], bool]) -> None:
        limits = drain_limits(runtime.settings, spec, idle_seconds=0.5, max_seconds=_DRAIN_SECONDS)
        while not is_done():
            if stop.wait(_PAUSE_SECONDS):
                raise UsageError("stopped")
            if time.monotonic() > give_up:
                raise UsageError(f"the round of {campaign_id} makes no progress in its drain {spec.name}")
            run_drain(runtime, spec, limits, stop=stop)

    console.print(f"the codes of {campaign_id} are made to have expired; their issuer says which were used")
    queue = runtime.queue(runtime.names.redemption_queue)
    *facts, watermark = _expired(runtime, campaign_id)
    # Another drain may be at work: what counts up to the watermark is taken before it.
    for statements in (facts, [watermark]):
        OF_THIS_MACHINE.send(queue, statements)
        work(REDEEM, lambda: not queue.depth().total)
    _draw(runtime, campaign_id, stop, console)
    work(SELECTIONS, lambda: _record(runtime, campaign_id).latest.reached(PhaseStatus.COMPLETED))
    work(NOTIFICATIONS, lambda: is_sent(_record(runtime, campaign_id)))
    table, fine = _account(runtime, campaign_id, time.monotonic() - began)
    Console(soft_wrap=True).print(table)
    if not fine:
        console.print("the numbers of the round do not add up")
    return fine


def _record(runtime: Runtime, campaign_id: str) -> DrawRecord:
    record = runtime.draws.get(campaign_id)
    if record is None:
        raise UsageError(f"{campaign_id} has no draw")
    return record


def _expired(runtime: Runtime, campaign_id: str) -> list[Any]:
    """What the issuer states of the codes, which expired an hour ago."""
    markets = [each for each in _record(runtime, campaign_id).latest.markets if each != NON_WINNERS]
    end = iso(runtime.clock() - _EXPIRED_SECONDS)
    runtime.database["draws"].update_one(
        {"_id": campaign_id}, {"$set": {f"phases.1.markets.{each}.codesExpireAt": end for each in markets}}
    )
    with tempfile.TemporaryDirectory(prefix="demo-issuer-") as folder:
        path = Path(folder) / "codes.csv"
        write_for_issuer(runtime, runtime.campaigns.require_id(campaign_id), path)
        return list(OF_THIS_MACHINE.statements(campaign_id, read_export(path), runtime.clock()))


def _draw(runtime: Runtime, campaign_id: str, stop: StopSignal, console: Console) -> None:
    """The round up to its publication. A sensor may let a run work on it, too."""
    terms = claim(runtime, runtime.campaigns.require_id(campaign_id))
    phase = open_phase(runtime, campaign_id, terms, run_id="demo")
    console.print(f"{len(terms.strikes):,} seats lapse: phase {phase} is drawn without their winners")
    accept = AcceptedFindings.of([EARLY_UNCLAIMED], _WHY, by="demo")
    draw = draw_run(
        runtime, campaign_id, run_id="demo", tell=lambda _: None, stop=stop, phase=phase, accept=accept
    )
    while not _record(runtime, campaign_id).latest.reached(PhaseStatus.PUBLISHED):
        with suppress(DrawBusy):
            list(draw.steps(unasked=True))
        if stop.wait(_PAUSE_SECONDS):
            raise UsageError("stopped")


def _account(runtime: Runtime, campaign_id: str, seconds: float) -> tuple[Table, bool]:
    """What became of the seats, and whether the numbers of the draw are those of the codes."""
    record = _record(runtime, campaign_id)
    first, last = record.phases[1], record.latest
    given = sum(int(market["planned"]) for name, market in first.markets.items() if name != NON_WINNERS)
    counted = runtime.database["codes"].count_documents
    redeemed, lapsed, passed = (
        counted({"campaignId": campaign_id, **of})
        for of in ({"status": "REDEEMED"}, {"passedOn": last.phase}, {"phase": last.phase})
    )
    sums = Sums(f"Round {last.round} of {campaign_id}: seats that pass on")
    sums.row("codes given", given, {"redeemed": redeemed, "lapsed": lapsed})
    sums.row("winners now", last.outcomes["WINNER"], {"redeemed": redeemed, "passed on": passed})
    sums.row("without a seat now", last.outcomes["UNCLAIMED"], {"lapsed": lapsed})
    verified = replayed(runtime, campaign_id, [*record.phases]).passed
    sums.table.add_row("verified", "yes" if verified else "NO", f"{len(record.phases)} phases")
    sums.table.add_row("time", f"{seconds:.1f} s", f"no day was waited for: accepted as {EARLY_UNCLAIMED}")
    return sums.table, sums.equal and verified
