"""Records what was done to campaigns and draws in a terminal as events of their assets, from their documents, so that
the UI shows it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import dagster as dg
import orjson

from regworkers_core.adapters.mongo.activity import Action
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord, PhaseStatus
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.operations.campaign_changes import delete
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.operations import described
from regworkers_dagster.drains.sensing import Answer, ticking
from regworkers_dagster.factories import CAMPAIGN_PARTITIONS
from regworkers_dagster.launching import values_of
from regworkers_dagster.metadata import facts_as_metadata
from regworkers_dagster.selection import specs
from regworkers_dagster.selection.assets import awaiting, table_of
from regworkers_dagster.selection.campaigns import draw_runs

Event = dg.AssetMaterialization | dg.AssetObservation
# Each of them reads nine assets in the event log.
_CAMPAIGNS_PER_TICK = 5
# The asset that a command changes, by its first word; the names of jobs are one word.
_OF_ACTIONS = {"codes": specs.CODES.key, "invites": dg.AssetKey("invites")}
# The start of the last action that was read, in the cursor beside the campaigns; no id of one has a colon. An action
# that has not ended after this time was killed.
_ACTIONS, _ENDS_WITHIN_SECONDS = "actions:", 3600.0
_MOST_ACTIONS = 200


@ticking
def record_tick(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    """Read campaigns and draws, and write what the event log lacks of those that changed."""
    known, instance, now = _marks(context.cursor), context.instance, runtime.clock()
    campaigns = [each for each in runtime.campaigns.list() if is_selection_id(each.campaign_id)]
    draws = {record.campaign_id: record for record in runtime.draws.all()}
    marks = {each.campaign_id: mark_of(each, draws.get(each.campaign_id)) for each in campaigns}
    # Completed campaigns no longer change: they come last after a lost cursor.
    campaigns.sort(key=lambda each: (each.status is CampaignStatus.COMPLETED, each.campaign_id))
    changed = [each for each in campaigns if known.get(each.campaign_id) != marks[each.campaign_id]]
    actions = runtime.operator_actions.history(what="draw ", limit=_MOST_ACTIONS) if changed else []
    events: list[Event] = []
    read = 0
    for campaign in changed:
        if read == _CAMPAIGNS_PER_TICK:
            break
        if draw_runs(instance, campaign.campaign_id, now).active:
            # That run records its steps itself, right after each decision.
            continue
        record = draws.get(campaign.campaign_id)
        whole = runtime.draws.get(campaign.campaign_id) if record else None
        events += missing(instance, campaign, whole, _of_commands(actions, campaign.campaign_id))
        known[campaign.campaign_id] = marks[campaign.campaign_id]
        read += 1
    by_hand = _by_hand(runtime, known, marks.keys(), now)
    events += by_hand.events
    kept = {name: mark for name, mark in known.items() if name in marks or name == _ACTIONS}
    cursor = orjson.dumps(kept).decode()
    summary = f"{len(events)} events of {read} campaigns recorded, {len(changed) - read} left"
    return dg.SensorResult(
        asset_events=events,
        dynamic_partitions_requests=[CAMPAIGN_PARTITIONS.build_delete_request(by_hand.deleted)]
        if by_hand.deleted
        else [],
        cursor=cursor,
        skip_reason=summary,
    )


class _ByHand(NamedTuple):
    """What people did since the last tick."""

    events: list[Event]  # what commands did to codes and invites; jobs record their own changes
    deleted: list[str]  # campaigns that are gone


def _by_hand(runtime: Runtime, known: dict[str, str], campaigns: Collection[str], now: float) -> _ByHand:
    found = _ByHand([], [])
    since = known.get(_ACTIONS) or iso(now - _ENDS_WITHIN_SECONDS)
    for action in reversed(runtime.operator_actions.history(since=since, limit=_MOST_ACTIONS)):
        if action.started_at <= since:
            continue
        if action.ended_at is None and now - (seconds(action.started_at) or now) < _ENDS_WITHIN_SECONDS:
            # Read again once it has ended.
            break
        known[_ACTIONS] = action.started_at
        if action.what == delete.command and action.outcome == "done" and action.target not in campaigns:
            found.deleted.append(action.target)
        asset = _OF_ACTIONS.get(action.what.partition(" ")[0])
        if asset is None or action.target not in campaigns:
            continue
        numbers = {name: value for name, value in action.result.items() if isinstance(value, int)}
        facts = {"command": action.what, "outcome": action.outcome, "at": action.started_at, **numbers}
        metadata = facts_as_metadata(facts)
        found.events.append(dg.AssetObservation(asset, partition=action.target, metadata=metadata))
    return found


def mark_of(campaign: Campaign, record: DrawRecord | None) -> str:
    """A text that changes whenever there may be something to record."""
    phases = [
        f"{number}{phase.status.value}{'r' * ('report' in phase.fields)}"
        for number, phase in (record.phases.items() if record else ())
    ]
    annulled = ["annulled"] if record and record.annulled else []
    amended = [f"amended{len(campaign.amendments)}"] if campaign.amendments else []
    return " ".join([campaign.status.value, *amended, *phases, *annulled])


def _of_commands(actions: Collection[Action], campaign_id: str) -> Collection[tuple[str, int]]:
    """The steps that commands decided, by the audit log, each with its phase."""
    return {
        (step, int(action.result.get("phase", 1)))
        for action in actions
        # Jobs record their steps themselves.
        if action.target == campaign_id and str(action.arguments.get("runId", "cli-")).startswith("cli-")
        for step, state in action.result.items()
        if state == "done"
    }


def missing(
    instance: dg.DagsterInstance,
    campaign: Campaign,
    record: DrawRecord | None,
    of_commands: Collection[tuple[str, int]],
) -> Iterator[Event]:
    """The events that the documents imply and the event log lacks. Those `of_commands` say so; the others are of a run
    that ended before it could record them.
    """
    campaign_id, status = campaign.campaign_id, campaign.status.value
    last = _last(instance, specs.CAMPAIGNS, campaign_id)
    if (last.get("status"), last.get("corrected")) != (status, campaign.corrected_at):
        shown = facts_as_metadata(values_of(described(campaign)))
        yield dg.AssetMaterialization(specs.CAMPAIGNS.key, partition=campaign_id, metadata=shown)
    latest: dict[str, tuple[int, Mapping[str, Any]]] = {}
    for phase in record.phases.values() if record and not record.is_former else ():
        latest |= {step: (phase.phase, facts) for step, facts in decided(phase)}
    for step, (number, facts) in latest.items():
        spec = specs.ASSET_OF[step]
        # An event without the number is from the first phase.
        at = _last(instance, spec, campaign_id)
        if not at or int(at.get("phase", 1)) < number:
            state = "done in a terminal" if (step, number) in of_commands else "done"
            made = facts_as_metadata({"state": state, **facts, "phase": number}) | table_of(step, facts)
            yield dg.AssetMaterialization(spec.key, partition=campaign_id, metadata=made)
    if record and record.phases and (words := awaiting(record)):
        yield _says(specs.PUBLICATION, campaign_id, "awaiting", words)
    if record and record.annulled:
        text = f"phase {record.annulled['phase']} at {record.annulled['annulledAt']}: {record.annulled['reason']}"
        yield _says(specs.DRAW, campaign_id, "annulled", text)


def decided(phase: PhaseRecord) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The completed steps of a phase, in order, with their facts."""
    from regworkers_core.selection.draw import allocation, commitment, freezing, seeding

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
    # Never empty for a materialisation, also for one without metadata.
    return {"": None} | {name: each.value for name, each in made.metadata.items()} if made else {}


def _says(spec: dg.AssetSpec, campaign_id: str, name: str, words: str) -> dg.AssetObservation:
    return dg.AssetObservation(spec.key, partition=campaign_id, metadata={name: dg.MetadataValue.text(words)})


def _marks(cursor: str | None) -> dict[str, str]:
    """The cursor by campaign; a lost one costs a read of every campaign."""
    try:
        document: Any = orjson.loads(cursor or "{}")
        return {str(name): str(mark) for name, mark in document.items()}
    except (orjson.JSONDecodeError, AttributeError):
        return {}
