"""The second half of the demo: a campaign is closed and drawn, up to the last queued message."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.table import Table

from fairdraw import commands
from fairdraw.large.allocate import LargeEngine
from fairdraw.log.trust import Trust
from fairdraw.maths.files import RESULT, canonical_bytes
from fairdraw.proof.check import HOLDS
from fairdraw.proof.verify import Verification, verify
from fairdraw.verifier.assemble import verifier_page
from regworkers_core.adapters.aws.objects import PUBLIC, ObjectStore
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord, PhaseStatus
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.domain.snapshot import SelectionJob
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.release import resume_blocked
from regworkers_core.selection.campaigns.opening import close_campaign
from regworkers_core.selection.codes.importing import CodesFile, import_codes
from regworkers_core.selection.drains import NOTIFICATIONS, SELECTIONS
from regworkers_core.selection.public.page import INDEX
from regworkers_core.selection.public.publish import PAGE_FOLDER, publish_page
from regworkers_core.selection.public.source import export
from regworkers_core.selection.registrations.opening import receipts_of
from regworkers_core.settings.documents import TRUST_FILE
from regworkers_local.dagster_server import RunFailure
from regworkers_local.load import CAMPAIGNS, MARKETS, SEATS
from regworkers_local.platform import Platform
from tools.demo.life import Console
from tools.demo.replication import Sums

CAMPAIGN = CAMPAIGNS[0]
# Half as many again as seats, for those that pass on.
CODES = SEATS + SEATS // 2
# What a draw needs; their sensors start another run after one that failed.
_JOBS = (SelectionJob.DRAW.value, SELECTIONS.job, NOTIFICATIONS.job)
# Runs in a row that fail for one reason, and after which no other one succeeds.
_SAME_FAILURES = 3
_PAUSE_SECONDS = 0.5
_LINE_SECONDS = 5.0


@dataclass(slots=True)
class Selected:
    """The result of the draw; `seconds` from the closing to the last queued message."""

    record: DrawRecord
    verification: Verification
    seconds: float


def select(runtime: Runtime, runs: Runs, stop: StopSignal, console: Console, give_up_seconds: float) -> bool:
    """Import codes, close the first campaign, wait for sensors and runs, and verify the draw offline.

    True if the draw verifies and every number adds up; False also if its runs can no longer succeed, which is said.
    Raises UsageError if it does not end in time.
    """
    _import_codes(runtime, console)
    began = time.monotonic()
    close_campaign(runtime, CAMPAIGN.campaign_id, reason="end of the demo's load", run_id="demo")
    console.print(f"{CAMPAIGN.campaign_id} is closed; its sensor starts the draw")
    record = _watch(runtime, Troubles(runs, console), stop, console, began, give_up_seconds)
    if record is None:
        return False
    taken = time.monotonic() - began
    console.print("everything is assigned and queued; replaying the draw from its published files")
    selected = Selected(record, replayed(runtime, CAMPAIGN.campaign_id, [1]), taken)
    table, fine = funnel(runtime, selected)
    Console(soft_wrap=True).print(table)
    for finding in selected.verification.findings:
        console.print(f"the draw does not verify: {finding}")
    if not fine:
        console.print("the numbers do not add up")
    return selected.verification.passed and fine


class Runs(Protocol):
    """Dagster, as far as the demo asks it for runs."""

    def failures(self, job: str) -> list[RunFailure]: ...


class Troubles:
    """Says each failed run of the selection once, and what keeps the draw from its end for good."""

    def __init__(self, runs: Runs, console: Console) -> None:
        self._runs, self._console = runs, console
        self._said: set[str] = set()
        self._asked_at = float("-inf")

    def are_final(self, record: DrawRecord | None) -> bool:
        """Whether no run can succeed any more: the last three of a job failed for one reason, or the gate found
        something, which a person decides.
        """
        phase = record.latest if record is not None and record.phases else None
        if phase is not None and phase.gate.get("findings") and not phase.confirmed:
            found = "; ".join(f"{each['name']}: {each['detail']}" for each in phase.gate["findings"])
            self._console.print(
                f"the draw is not published, because its gate found {found}. KEEP=1 make demo keeps all of it; there,"
                f" `regworkers draw report {CAMPAIGN.campaign_id}` shows it",
                markup=False,
            )
            return True
        if time.monotonic() - self._asked_at < _LINE_SECONDS:
            return False
        self._asked_at = time.monotonic()
        return any(self._of(job) for job in _JOBS)

    def _of(self, job: str) -> bool:
        failed = self._runs.failures(job)
        for each in reversed(failed):
            if each.page not in self._said:
                self._said.add(each.page)
                self._console.print(f"a run of {job} failed: {each.why} (see {each.page})", markup=False)
        last = [each.why for each in failed[:_SAME_FAILURES]]
        if len(last) < _SAME_FAILURES or len(set(last)) > 1:
            return False
        self._console.print(
            f"{_SAME_FAILURES} runs of {job} in a row failed for this reason, so no other one can succeed. KEEP=1 make"
            " demo keeps them and their pages"
        )
        return True


def publish(runtime: Runtime, folder: Path, confirmations: Path, console: Console) -> dict[str, Path]:
    """Publish the page of the draw, with a copy in `folder` of all that is public; also there, one winner's and one
    loser's receipt and their confirmations, as the platform wrote them, which are checked. Returns the files by what
    they are. Raises UsageError for one that does not hold by the stack's trust file.
    """
    shutil.rmtree(folder, ignore_errors=True)
    publish_page(runtime, CAMPAIGN.campaign_id, apply=True)
    copy_public(runtime.objects, folder)
    draw = folder / "draws" / CAMPAIGN.campaign_id
    found = {"public page": draw / PAGE_FOLDER / INDEX}
    found["trust file"] = folder / TRUST_FILE
    shutil.copyfile(runtime.settings.selection.beacon.trust_file, found["trust file"])
    with tempfile.TemporaryDirectory(prefix="demo-draw-") as cache:
        source = receipts_of(runtime, CAMPAIGN.campaign_id, Path(cache))
        lines = (draw / "phase-1" / RESULT).read_text().splitlines()
        for name, outcomes in (("winner", ("WINNER",)), ("loser", ("WAITLIST", "UNSELECTED"))):
            ref = next((line.split("|")[0] for line in lines if line.endswith(outcomes)), None)
            if ref is None:
                # Of a few hundred entries everybody wins.
                continue
            path = found[f"receipt of a {name}"] = folder / f"receipt-{name}.html"
            path.write_bytes(verifier_page(canonical_bytes(source.receipt(ref))))
            _check(path, folder, console)
            path = found[f"confirmation of a {name}"] = folder / f"confirmation-{name}.json"
            path.write_bytes(_confirmation(runtime, ref, confirmations))
            _check(path, folder, console, from_=str(folder))
    return found


def copy_public(objects: ObjectStore, folder: Path) -> None:
    """Copy all that is public, of every campaign: the log names files of each."""
    for key in [each for public in PUBLIC for each in objects.list(public)]:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        objects.get_file(key, folder / key)


def _check(path: Path, folder: Path, console: Console, from_: str | None = None) -> None:
    """Check a receipt or confirmation by the trust file in `folder`. Raises UsageError unless it holds."""
    trust = folder / TRUST_FILE
    checked = commands.check_receipt(path, trust=trust, from_=from_)
    verdict = checked.document["verdict"]
    console.print(f"{path.name}: {checked.lines[0].text} ({verdict})", markup=False)
    if verdict != HOLDS:
        raise UsageError(f"{path} does not hold by {trust}: `fairdraw check-receipt` with both says why")


def _confirmation(runtime: Runtime, ref: str, confirmations: Path) -> bytes:
    """What the platform sent to the fan with this ref when they registered."""
    registrant = runtime.registrations.with_ref(CAMPAIGN.campaign_id, ref)
    if registrant is None:
        raise UsageError("an entry of the draw is not in the replica")
    return Platform(runtime, confirmations).path(registrant.key).read_bytes()


def _import_codes(runtime: Runtime, console: Console) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "codes.csv"
        # With a leading `A`: the embedded MongoDB takes an id like 12E345 for a number, and two of them for equal.
        rows = (f"AW{secrets.token_hex(6).upper()},{market}\n" for market in MARKETS for _ in range(CODES))
        path.write_text("code,marketId\n" + "".join(rows))
        report = import_codes(
            runtime,
            CodesFile(
                path,
                runtime.campaigns.require_id(CAMPAIGN.campaign_id),
                market_id=None,
                rejects=Path(folder) / "rejects.csv",
            ),
            run_id="demo",
            resume=resume_blocked,
        )
    console.print(f"{report.added:,} access codes imported for {len(MARKETS)} markets")


def _watch(
    runtime: Runtime,
    troubles: Troubles,
    stop: StopSignal,
    console: Console,
    began: float,
    give_up_seconds: float,
) -> DrawRecord | None:
    """The draw once all of it is done; None if it never will be."""
    printed, printed_at = "", 0.0
    while not stop.wait(_PAUSE_SECONDS):
        try:
            record = runtime.draws.get(CAMPAIGN.campaign_id)
        except Failure:
            # A busy server may miss its time-out; the next call decides.
            continue
        line = _line(record)
        now = time.monotonic()
        new_step = line.partition(":")[0] != printed.partition(":")[0]
        if line != printed and (new_step or now - printed_at >= _LINE_SECONDS):
            console.print(f"{now - began:4.0f} s  {line}")
            printed, printed_at = line, now
        if record is not None and is_sent(record):
            return record
        if troubles.are_final(record):
            return None
        if now - began > give_up_seconds:
            raise UsageError(f"the draw makes no progress ({line}): see the runs in the Dagster UI")
    raise UsageError("stopped")


def _line(record: DrawRecord | None) -> str:
    """The progress of the draw; the step is before the colon."""
    if record is None or not record.phases:
        return "closed: waiting for the draw to start"
    phase = record.latest
    if not phase.reached(PhaseStatus.PUBLISHED):
        return f"draw {phase.status.lower()}: {phase.freeze.get('eligible', 0):,} entries take part"
    done = sum(1 for market in phase.markets.values() if market["status"] == "COMPLETED")
    sent = _sent(phase)
    return f"draw {phase.status.lower()}: {done} of {len(phase.markets)} markets assigned, {sent:,} messages queued"


def is_sent(record: DrawRecord) -> bool:
    """Whether every message of the phase is on the notification queue."""
    phase = record.latest
    planned = sum(market["planned"] for market in phase.markets.values())
    return phase.reached(PhaseStatus.COMPLETED) and _sent(phase) == planned


def _sent(phase: PhaseRecord) -> int:
    return sum(int(market.get("sent", 0)) for market in phase.markets.values())


def replayed(runtime: Runtime, campaign_id: str, phases: Sequence[int]) -> Verification:
    """The draw as its published files say it, replayed offline up to the last of these phases."""
    with tempfile.TemporaryDirectory(prefix="demo-draw-") as folder:
        export(runtime.objects, campaign_id, phases, Path(folder))
        beacon, engine = runtime.settings.selection.beacon, LargeEngine(scratch=Path(folder) / "scratch")
        return verify(Path(folder), engine=engine, trust=Trust({beacon.chain.hash: beacon.lead_seconds}))


def funnel(runtime: Runtime, selected: Selected) -> tuple[Table, bool]:
    """The numbers from registration to message, and whether they add up."""
    phase = selected.record.latest
    freeze, outcomes = phase.freeze, phase.outcomes
    winners = outcomes.get("WINNER", 0)
    planned = {market: numbers["planned"] for market, numbers in phase.markets.items()}
    stored = {
        "codes assigned": runtime.database["codes"].count_documents(
            {"campaignId": CAMPAIGN.campaign_id, "status": "ASSIGNED"}
        ),
        "selections": runtime.database["selections"].count_documents({"campaignId": CAMPAIGN.campaign_id}),
    }
    sums = Sums(f"Selection of {CAMPAIGN.campaign_id}")
    table, row = sums.table, sums.row
    row("registered", freeze["entries"], {"eligible": freeze["eligible"], **_words(freeze["excluded"])})
    row("eligible", freeze["eligible"], _words(outcomes))
    row("winners", winners, {f"in {name}": number for name, number in planned.items() if name != "-"})
    for name, number in stored.items():
        row(name, number, {"one per winner": winners})
    row("messages queued", _sent(phase), {"winner": winners, "others": planned.get("-", 0)})
    row("messages planned", sum(planned.values()), {"eligible": freeze["eligible"]})
    table.add_row(
        "verified", "yes" if selected.verification.passed else "NO", f"result {phase.result_hash[:16]}…"
    )
    table.add_row("time", f"{selected.seconds:.1f} s", "from closing to the last queued message")
    return table, sums.equal


def _words(counts: Mapping[str, Any]) -> dict[str, int]:
    return {name.lower().replace("_", " "): int(number) for name, number in counts.items()}
