"""The state of a campaign: status, entries, codes, draw and messages, and what needs an operator, with the command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fairdraw import scheduling
from fairdraw.documents import as_document
from regworkers_core.adapters.mongo.draws import (
    DrawRecord,
    MarketStatus,
    PhaseRecord,
    PhaseStatus,
    lease_name,
    works_on_draw,
)
from regworkers_core.adapters.mongo.outbox import RowStatus
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.selection import NON_WINNERS, MarketPhase, confirmation_word
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.live_entries import CampaignLag, campaign_lag
from regworkers_core.engine.leases import LeaseHolder
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.markets import waits_to_finish
from regworkers_core.selection.codes.stock import MarketStock, read_stock


@dataclass(frozen=True, slots=True)
class ToDo:
    """A condition that needs an operator."""

    # What it is.
    text: str
    # What to run at a terminal.
    command: str
    # The job that does the same; empty: none.
    job: str = ""
    # Fields of the job's form beside the campaign.
    given: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class CampaignReport:
    """The state of one campaign."""

    campaign: Campaign
    # Live entries in the replica.
    entries: int
    # Removed entries in the replica.
    tombstones: int
    # How far the replica is behind.
    replication: CampaignLag
    codes: list[MarketStock]
    record: DrawRecord | None
    # Rows by phase, market and status.
    outbox: Mapping[str, Mapping[str, Mapping[str, int]]]
    # Messages by their state, as the status of notifications has them.
    notifications: Mapping[str, Any]
    # What is left to do.
    findings: list[ToDo]

    @property
    def fine(self) -> bool:
        return not self.findings

    @property
    def since(self) -> str | None:
        """The time of the last recorded change of the status."""
        transitions = self.campaign.transitions
        return transitions[-1].at if transitions else None

    def as_dict(self) -> dict[str, Any]:
        return {
            **as_document(self.campaign, "campaign_id", "status", "opens_at", "auto_draw", "registration"),
            "closesAt": self.campaign.takes_entries_until,
            "closedEarly": self.campaign.closed_early,
            **as_document(self, "fine", "since", "entries", "tombstones", "replication", "codes", "outbox"),
            **as_document(self, "notifications"),
            "annulled": dict(self.record.annulled) if self.record and self.record.annulled else None,
            "draw": _draw(self.record),
            "findings": [
                {"finding": each.text, "command": each.command, "job": each.job or None}
                for each in self.findings
            ],
        }


def read_campaign_status(runtime: Runtime, campaign: Campaign) -> CampaignReport:
    """Read the state of a campaign. Waits for a heartbeat of an unfinished draw. Raises TransientFailure."""
    campaign_id = campaign.campaign_id
    record = runtime.draws.get(campaign_id)
    codes = read_stock(runtime, campaign, record)
    outbox, notifications = _outbox(runtime, record), read_switch(runtime, record)
    at_work = partial(_at_work, runtime, campaign_id)
    findings = find_to_do(runtime, campaign, record, codes, notifications, outbox, at_work)
    counted = runtime.replica.count_campaign(campaign_id)
    return CampaignReport(
        campaign,
        counted.live,
        counted.tombstones,
        campaign_lag(runtime, campaign_id),
        codes,
        record,
        outbox,
        notifications,
        findings,
    )


def find_to_do(
    runtime: Runtime,
    campaign: Campaign,
    record: DrawRecord | None,
    codes: Sequence[MarketStock],
    switch: Mapping[str, Any],
    outbox: Mapping[str, Mapping[str, Mapping[str, int]]],
    at_work: Callable[[], bool],
) -> list[ToDo]:
    """What needs an operator. `at_work` says whether a run works on the draw; an empty `outbox` was not counted."""
    return [
        *_of_status(runtime, campaign),
        *_of_codes(campaign, codes, record),
        *_of_draw(runtime, campaign, record, at_work),
        *_of_notifications(campaign.campaign_id, switch, outbox),
    ]


def _of_status(runtime: Runtime, campaign: Campaign) -> Iterator[ToDo]:
    now, campaign_id = iso(runtime.clock()), campaign.campaign_id
    if (paused := runtime.parking.of(campaign_id)) is not None:
        yield ToDo(
            f"its replication is paused since {paused.at} by {paused.by}: {paused.reason}",
            f"regworkers campaign resume {campaign_id}",
            "resume_campaign",
        )
    if campaign.status is CampaignStatus.DRAFT and campaign.opens_at <= now:
        yield ToDo(
            "opensAt has passed and it is a draft", f"regworkers campaign open {campaign_id}", "open_campaign"
        )
    elif campaign.status is CampaignStatus.OPEN and campaign.closes_at <= now:
        yield ToDo(
            "closesAt has passed and it is open", f"regworkers campaign close {campaign_id}", "close_campaign"
        )
    elif campaign.status is CampaignStatus.CLOSED:
        yield ToDo("it is closed and not drawn yet", f"regworkers draw run {campaign_id}", "draw")


def _of_codes(campaign: Campaign, codes: Sequence[MarketStock], record: DrawRecord | None) -> Iterator[ToDo]:
    """Compare codes with the capacity before a draw, and with its winners after. Once these are published, the markets
    of the draw report what is missing.
    """
    load = f"regworkers codes import <csv> --campaign {campaign.campaign_id}"
    for stock in codes:
        if stock.capacity is None:
            yield ToDo(
                f"there are codes for {stock.market_id}, which is not a market of the campaign",
                f"regworkers codes status {campaign.campaign_id}",
            )
    if campaign.status.is_before(CampaignStatus.CLOSED):
        return
    if record is not None and (
        record.annulled or (record.phases and record.latest.reached(PhaseStatus.PUBLISHED))
    ):
        return
    for stock in codes:
        if stock.missing and stock.capacity is not None:
            of = f"{stock.capacity} seats" if stock.wanted is None else f"{stock.wanted} winners"
            text = f"market {stock.market_id}: codes for {stock.missing} of {of} are missing"
            yield ToDo(
                text, f"{load} --market {stock.market_id}", "import_codes", {"market_id": stock.market_id}
            )


def _of_draw(
    runtime: Runtime, campaign: Campaign, record: DrawRecord | None, at_work: Callable[[], bool]
) -> Iterator[ToDo]:
    campaign_id = campaign.campaign_id
    phases = record.phases if record else {}
    if not phases or not record:
        if campaign.status is CampaignStatus.PROCESSING and not at_work():
            yield ToDo(
                "it is in processing and no run works on it", f"regworkers draw run {campaign_id}", "draw"
            )
        return
    if record.annulled:
        yield from _of_annulled(runtime, record)
        return
    if record.former_rules:
        yield ToDo(record.former_rules, f"regworkers draw annul {campaign_id} --reason <text>", "annul_draw")
        return
    latest = record.latest
    if (
        latest.status is PhaseStatus.DRAWN
        and "report" in latest.fields
        and "confirmedAt" not in latest.fields
    ):
        yield ToDo(
            f"phase {latest.phase} waits for the confirmation of its publication",
            f"regworkers draw run {campaign_id}",
            "confirm_draw",
            {"confirm": confirmation_word(campaign_id, latest.phase)},
        )
        accepted = {each["finding"] for each in latest.accepted}
        for found in latest.gate.get("findings", ()):
            if found["name"] not in accepted:
                accepts = (
                    f"regworkers draw run {campaign_id} --accept-finding {found['name']} --reason <text>"
                )
                yield ToDo(
                    f"phase {latest.phase}: the gate found {found['name']}: {found['detail']}",
                    accepts if found["acceptable"] else f"regworkers draw verify {campaign_id}",
                    "confirm_draw" if found["acceptable"] else "",
                    {
                        "confirm": confirmation_word(campaign_id, latest.phase),
                        "accept": found["name"],
                    },
                )
    elif latest.status is PhaseStatus.OPENED and campaign.status.is_before(CampaignStatus.PROCESSING):
        # It has only strikes, which were submitted before the draw began.
        pass
    elif latest.round_due is not None and latest.round_due > runtime.clock():
        # The sensor, or the next run, continues once the round is signed.
        pass
    elif not latest.reached(PhaseStatus.PUBLISHED) and not at_work():
        yield ToDo(
            f"phase {latest.phase} is {latest.status} and no run works on it",
            f"regworkers draw run {campaign_id}",
            "draw",
        )
    for phase in phases.values():
        yield from _of_markets(runtime, campaign_id, phase)
        if phase.markets and waits_to_finish(phase):
            yield ToDo(
                f"phase {phase.phase}: all its markets are complete, but the phase is not",
                _retry(campaign_id, next(iter(phase.markets))),
                "retry_market_selection",
                {"market_id": next(iter(phase.markets))},
            )


def _of_annulled(runtime: Runtime, record: DrawRecord) -> Iterator[ToDo]:
    """Find codes that fans hold, and messages that an interrupted annulment has not stopped."""
    campaign_id = record.campaign_id
    if held := runtime.codes.count_held(campaign_id):
        yield ToDo(
            f"codes of the annulled draw that fans hold, for their issuer to block: {held}",
            f"regworkers codes block {campaign_id}",
            "block_struck_codes",
        )
    if any(runtime.outbox.open(market) for market in record.market_phases()):
        yield ToDo(
            "messages of the annulled draw are not superseded (none is sent): run the annulment again",
            f"regworkers draw annul {campaign_id} --reason <text> --apply",
            "annul_draw",
        )


def _of_markets(runtime: Runtime, campaign_id: str, phase: PhaseRecord) -> Iterator[ToDo]:
    for market_id, numbers in phase.markets.items():
        name = f"phase {phase.phase}, market {'others' if market_id == NON_WINNERS else market_id}"
        if numbers["status"] == MarketStatus.BLOCKED:
            yield ToDo(
                f"{name} needs {numbers.get('needed')} codes and has {numbers.get('available')}",
                f"regworkers codes import <csv> --campaign {campaign_id} --market {market_id}",
                "import_codes",
                {"market_id": market_id},
            )
        elif numbers["status"] == MarketStatus.ASSIGNING:
            rows = runtime.chunks.open(MarketPhase(campaign_id, market_id, phase.phase))
            failed = [row for row in rows if row.get("failedAt")]
            if failed:
                yield ToDo(
                    f"{name}: failed chunks {len(failed)}, the first with: {failed[0].get('failure')}",
                    _retry(campaign_id, market_id),
                    "retry_market_selection",
                    {"market_id": market_id},
                )


def _retry(campaign_id: str, market_id: str) -> str:
    event = f'{{"campaignId": "{campaign_id}", "marketId": "{market_id}"}}'
    return f"regworkers invoke enqueueMarketSelections '{event}'"


def _of_notifications(
    campaign_id: str, switch: Mapping[str, Any], outbox: Mapping[str, Mapping[str, Mapping[str, int]]]
) -> Iterator[ToDo]:
    rows: Counter[str] = Counter()
    for markets in outbox.values():
        for counts in markets.values():
            rows.update(counts)
    waiting = rows[RowStatus.PENDING]
    if switch.get("paused") and waiting:
        whose = "--all" if switch.get("all") else campaign_id
        yield ToDo(
            f"{waiting} messages wait while notifications are paused: {switch.get('reason') or 'no reason given'}",
            f"regworkers notifications resume {whose}",
            "resume_notifications",
        )
    if held := rows[RowStatus.HELD]:
        yield ToDo(
            f"{held} messages wait for the confirmation of a further phase that changes their outcome",
            f"regworkers draw run {campaign_id}",
        )
    if failed := rows[RowStatus.FAILED]:
        yield ToDo(
            f"{failed} messages failed individually and are not retried",
            f"regworkers notifications retry {campaign_id}",
            "retry_notifications",
        )


def _at_work(runtime: Runtime, campaign_id: str) -> bool:
    """Whether a run works on the draw: it holds the lease and renews it every third of a lease time. A sender of
    messages that holds the lease does not work on the draw.
    """
    key = LeaseHolder.key_of(lease_name(campaign_id))
    before = runtime.leases.get(key)
    if before is None or not works_on_draw(before.owner):
        return False
    for _ in range(5):
        scheduling.sleep(runtime.settings.selection.lease_seconds / 10)
        now = runtime.leases.get(key)
        if now is not None and (now.token, now.counter) != (before.token, before.counter):
            return works_on_draw(now.owner)
    return False


def _outbox(runtime: Runtime, record: DrawRecord | None) -> dict[str, dict[str, dict[str, int]]]:
    found: dict[str, dict[str, dict[str, int]]] = {}
    if record is None:
        return found
    for number, phase in record.phases.items():
        for market_id in phase.markets:
            market = MarketPhase(record.campaign_id, market_id, number)
            found.setdefault(str(number), {})[market_id] = dict(runtime.outbox.count_by(market, "status"))
    return found


def read_switch(runtime: Runtime, record: DrawRecord | None) -> Mapping[str, Any]:
    """Return the stop switch in force: that of all campaigns takes precedence over the campaign's own."""
    everyone = runtime.draw_markets.all_switch()
    if everyone.get("paused"):
        return {"paused": True, "all": True, "reason": everyone.get("reason"), "by": everyone.get("by")}
    own = record.notifications if record else {}
    return {"paused": bool(own.get("paused")), "all": False, "reason": own.get("reason"), "by": own.get("by")}


def _committed(phase: PhaseRecord) -> dict[str, Any]:
    """Return what was committed to and when it was public; `round` and `dueAt` while the draw waits for its round."""
    due = phase.round_due
    return {
        "manifestHash": phase.manifest_hash or None,
        "publishedAt": phase.published_at,
        "publishedLate": bool(phase.manifest_hash) and phase.published_late,
        "round": phase.awaited_round,
        "dueAt": None if due is None else iso(due),
        "replaced": len(phase.replaced),
    }


def _draw(record: DrawRecord | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return {
        str(number): {
            "status": phase.status.value,
            **_committed(phase),
            "outcomes": dict(phase.outcomes),
            "resultHash": phase.result_hash or None,
            "markets": {market_id: dict(numbers) for market_id, numbers in phase.markets.items()},
        }
        for number, phase in record.phases.items()
    }
