"""What other hands did shows in the UI: campaigns and draws that were moved on in a terminal are recorded as events of
their assets, from what their documents say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import dagster as dg
import orjson

from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord, PhaseStatus
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw import allocation, commitment, freezing, seeding
from regworkers_dagster.drains.sensing import Answer, safely
from regworkers_dagster.resources import Workers
from regworkers_dagster.selection import specs
from regworkers_dagster.selection.campaign_jobs import campaign_facts
from regworkers_dagster.selection.campaigns import draw_runs
from regworkers_dagster.selection.steps import awaiting, facts_as_metadata

Event = dg.AssetMaterialization | dg.AssetObservation
# Each of them asks the event log about nine assets.
_LOOKED_AT_PER_TICK = 5
# What a terminal does with codes and invites, by the first word of the command; the names of jobs are one word.
_OF_ACTIONS = {"codes": specs.CODES.key, "invites": dg.AssetKey("invites")}
# In the cursor, beside campaigns by their ids, none of which has a colon: the start of the last action that was looked
# at. One that has not ended after this time was killed.
_ACTIONS, _ENDS_WITHIN_SECONDS = "actions:", 3600.0
_MOST_ACTIONS = 200


def record_tick(context: dg.SensorEvaluationContext, tick_workers: Workers) -> Answer:
    """Reads campaigns and draws, and of those that changed what the event log has already."""
    return safely(context, lambda: _record(context, tick_workers.runtime))


def _record(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    known, instance, now = _marks(context.cursor), context.instance, runtime.clock()
    campaigns = [each for each in runtime.campaigns.list() if is_selection_id(each.campaign_id)]
    draws = {record.campaign_id: record for record in runtime.draws.all()}
    marks = {each.campaign_id: mark_of(each, draws.get(each.campaign_id)) for each in campaigns}
    # Those that are over long ago change no more: they come last when the cursor is lost.
    campaigns.sort(key=lambda each: (each.status is CampaignStatus.COMPLETED, each.campaign_id))
    changed = [each for each in campaigns if known.get(each.campaign_id) != marks[each.campaign_id]]
    events: list[Event] = []
    looked_at = 0
    for campaign in changed:
        if looked_at == _LOOKED_AT_PER_TICK:
            break
        if draw_runs(instance, campaign.campaign_id, now).active:
            # That run records its steps itself, each a moment after it is decided.
            continue
        record = draws.get(campaign.campaign_id)
        whole = runtime.draws.get(campaign.campaign_id) if record else None
        events += missing(instance, campaign, whole)
        known[campaign.campaign_id] = marks[campaign.campaign_id]
        looked_at += 1
    events += _by_hand(runtime, known, marks.keys(), now)
    kept = {name: mark for name, mark in known.items() if name in marks or name == _ACTIONS}
    cursor = orjson.dumps(kept).decode()
    told = (
        f"{len(events)} events of {looked_at} campaigns recorded, {len(changed) - looked_at} to be looked at"
    )
    return dg.SensorResult(asset_events=events, cursor=cursor, skip_reason=told)


def _by_hand(
    runtime: Runtime, known: dict[str, str], campaigns: Collection[str], now: float
) -> Iterator[Event]:
    """What was done with codes and invites since the last tick; jobs record their own."""
    since = known.get(_ACTIONS) or iso(now - _ENDS_WITHIN_SECONDS)
    for action in reversed(runtime.operator_actions.history(since=since, limit=_MOST_ACTIONS)):
        if action.started_at <= since:
            continue
        if action.ended_at is None and now - (seconds(action.started_at) or now) < _ENDS_WITHIN_SECONDS:
            # Looked at again once it has ended.
            return
        known[_ACTIONS] = action.started_at
        asset = _OF_ACTIONS.get(action.what.partition(" ")[0])
        if asset is None or action.target not in campaigns:
            continue
        numbers = {name: value for name, value in action.result.items() if isinstance(value, int)}
        facts = {"command": action.what, "outcome": action.outcome, "at": action.started_at, **numbers}
        yield dg.AssetObservation(asset, partition=action.target, metadata=facts_as_metadata(facts))


def mark_of(campaign: Campaign, record: DrawRecord | None) -> str:
    """Changes whenever there may be something to record."""
    phases = [
        f"{number}{phase.status.value}{'r' * ('report' in phase.fields)}"
        for number, phase in (record.phases.items() if record else ())
    ]
    annulled = ["annulled"] if record and record.annulled else []
    return " ".join([campaign.status.value, *phases, *annulled])


def missing(instance: dg.DagsterInstance, campaign: Campaign, record: DrawRecord | None) -> Iterator[Event]:
    """What the documents say and the event log does not have."""
    campaign_id, status = campaign.campaign_id, campaign.status.value
    if _last(instance, specs.CAMPAIGNS, campaign_id).get("status") != status:
        yield _event(specs.CAMPAIGNS, campaign_id, campaign_facts(campaign))
    latest: dict[str, tuple[int, Mapping[str, Any]]] = {}
    for phase in record.phases.values() if record else ():
        latest |= {step: (phase.phase, facts) for step, facts in decided(phase)}
    for step, (number, facts) in latest.items():
        spec = specs.ASSET_OF[step]
        # What is from before this number was noted is of the first phase.
        at = _last(instance, spec, campaign_id)
        if not at or int(at.get("phase", 1)) < number:
            yield _event(spec, campaign_id, {"state": "done by other hands", **facts, "phase": number})
    if record and record.phases and (words := awaiting(record)):
        yield _says(specs.PUBLICATION, campaign_id, "awaiting", words)
    if record and record.annulled:
        words = f"phase {record.annulled['phase']} at {record.annulled['annulledAt']}: {record.annulled['reason']}"
        yield _says(specs.DRAW, campaign_id, "annulled", words)


def decided(phase: PhaseRecord) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The steps that a phase has behind it, in order, with their facts."""
    if phase.phase == 1 and phase.eligibility:
        yield "judge", phase.eligibility
    if phase.phase == 1 and phase.freeze:
        yield "freeze", freezing.facts(phase)
    if phase.manifest_hash:
        yield "commit", commitment.facts(phase)
    if seeding.seed_bytes(phase):
        yield "seed", seeding.facts(phase)
    if phase.reached(PhaseStatus.RANKED):
        yield "rank", {"rankedAt": phase.fields.get("rankedAt")}
    if phase.result_hash:
        yield "allocate", allocation.facts(phase)
    if "report" in phase.fields:
        yield "report", phase.fields["report"]
    if phase.reached(PhaseStatus.PUBLISHED):
        markets = {market: dict(numbers) for market, numbers in phase.markets.items()}
        yield "publish", {"status": phase.status.value, "markets": markets}


def _last(instance: dg.DagsterInstance, spec: dg.AssetSpec, campaign_id: str) -> dict[str, Any]:
    """The metadata of the latest materialisation, empty when there is none."""
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(spec.key, asset_partitions=[campaign_id]), limit=1
    ).records
    made = records[0].asset_materialization if records else None
    # Something is there, whatever it says.
    return {"": None} | {name: each.value for name, each in made.metadata.items()} if made else {}


def _event(spec: dg.AssetSpec, campaign_id: str, facts: Mapping[str, Any]) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(spec.key, partition=campaign_id, metadata=facts_as_metadata(facts))


def _says(spec: dg.AssetSpec, campaign_id: str, name: str, words: str) -> dg.AssetObservation:
    return dg.AssetObservation(spec.key, partition=campaign_id, metadata={name: dg.MetadataValue.text(words)})


def _marks(cursor: str | None) -> dict[str, str]:
    """A lost cursor costs a read of every campaign."""
    try:
        document: Any = orjson.loads(cursor or "{}")
        return {str(name): str(mark) for name, mark in document.items()}
    except (orjson.JSONDecodeError, AttributeError):
        return {}
