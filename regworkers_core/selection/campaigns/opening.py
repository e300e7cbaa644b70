"""Logs campaigns: what a campaign promises as it opens, and every change of that.

`draws/<campaignId>/opened.json` is put once, each `amended-<k>.json` after it, and the public log has a leaf of each.
What we do ourselves is logged first, under the lease `campaign-<id>`, for which a run that logs waits. What others do
in MongoDB is logged within a minute, by a run that the sensor `watch_campaigns` starts. A campaign opens whether or not
log and witnesses answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from fairdraw import scheduling
from fairdraw.errors import DrawError
from fairdraw.log.leaves import Kind, LogLeaf
from fairdraw.maths.files import canonical_bytes, sha256_hex
from fairdraw.maths.opened import IssuerKey, Opened, opened_name, parse_opened, unchangeable
from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.domain.campaign import Campaign, CampaignStatus, LoggedTerms, RefusedTerms
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.live_entries import count_entries
from regworkers_core.engine.deadline import NoAnswer, result_by, run_in_thread
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.keys import ensure_keys
from regworkers_core.selection.campaigns.registry import (
    Advanced,
    advance,
    advance_under,
    campaign_lease,
    published_terms,
)
from regworkers_core.selection.public.public_log import NotWitnessed, PublicLog

# The reason of an amendment for a change that another writer made in MongoDB.
AFTERWARDS = "changed by another writer: logged after it acted"
# So long an opening or a closing waits for its own record.
_FIRST_SECONDS = 5.0
_DOCUMENT = "the campaign's document in MongoDB (`campaigns`)"
# Writers that come between.
_ATTEMPTS = 20


def terms_of(runtime: Runtime, campaign: Campaign) -> Opened:
    """What the campaign promises as it is now. It has keys."""
    markets = sorted(campaign.markets, key=lambda market: market.market_id)
    keys = sorted(campaign.issuer_keys, key=lambda key: key.id)
    return Opened(
        campaign_id=campaign.campaign_id,
        caseless=campaign.codes.caseless,
        chain=runtime.settings.selection.beacon.chain.hash,
        closes_at=campaign.takes_entries_until,
        code_key=campaign.code_key,
        eligibility=campaign.eligibility.as_document(),
        event_id=campaign.event_id,
        issuer_keys=tuple(IssuerKey(key.id, key.key) for key in keys),
        markets=tuple(map(published_terms, markets)),
        name=campaign.name,
        opens_at=campaign.opens_at,
        registration=campaign.logs_registrations,
        unit_key_hash=campaign.unit_key_hash or "",
        waitlist_size=campaign.draw.waitlist_size,
        wins_per_unit=campaign.draw.wins_per_unit,
    )


def is_logged(runtime: Runtime, campaign: Campaign) -> bool:
    """Whether the published log has the campaign as it is now, by the campaign's document alone."""
    if campaign.unit_key_hash is None or campaign.opened is None:
        return False
    return campaign.opened.terms == _identity(terms_of(runtime, campaign))


def _identity(terms: Opened) -> str:
    """The hash of their file, also of terms that no file can have."""
    return sha256_hex(canonical_bytes(terms.as_document()))


def why_refused(runtime: Runtime, campaign: Campaign) -> str:
    """Why the log can never have the campaign as it is now, and the way out; empty if that was not found."""
    refused = campaign.refused
    if refused is None or refused.terms != _identity(terms_of(runtime, campaign)):
        return ""
    return refused.why


def waits_for_log(runtime: Runtime, campaign: Campaign) -> bool:
    """Whether a run has to log the campaign: it is OPEN, and the log has it otherwise and can have it as it is."""
    is_open = campaign.status is CampaignStatus.OPEN
    return is_open and not is_logged(runtime, campaign) and not why_refused(runtime, campaign)


class Proposal(NamedTuple):
    """An amendment that is logged before it acts."""

    before: Campaign
    after: Campaign
    reason: str


def decide(
    runtime: Runtime, campaign_id: str, *, proposal: Proposal | None = None, on_step: OnStep = no_step
) -> LoggedTerms:
    """Put the next file about the campaign, as it is or as the proposal makes it, unless the last one says the same;
    decide its leaf in the log, and name it in the campaign's document. Asks no witness. Idempotent; of concurrent calls
    one puts each file.

    Raises UsageError for terms that the log can never have, for a proposal about another definition than the
    campaign's, and as `ensure_keys`; TransientFailure, DrawError for a damaged log.
    """
    record = _extended(runtime, campaign_id, proposal, on_step)
    on_step("campaigns.after_record")
    at = iso(runtime.clock())
    leaves = [
        LogLeaf(campaign_id, each.hash, Kind.AMENDED if number else Kind.OPENED, number, at)
        for number, each in enumerate(record)
    ]
    index = PublicLog.of(runtime).decide(leaves)[-1]
    on_step("campaigns.after_leaf")
    logged, campaign = LoggedTerms(record[-1].hash, index), runtime.campaigns.require_id(campaign_id)
    if campaign.opened is None or campaign.opened.hash != logged.hash:
        runtime.campaigns.set_opened(campaign_id, logged)
        runtime.campaign_cache.forget(campaign)
    return replace(logged, terms=record[-1].terms.hash)


def _extended(
    runtime: Runtime, campaign_id: str, proposal: Proposal | None, on_step: OnStep
) -> tuple[Opened, ...]:
    """The files about the campaign, the last of which has its terms: after a draw is committed, those of the commit."""
    for _ in range(_ATTEMPTS):
        record = recorded(runtime.objects, campaign_id)
        # The document after the last file, never before: so a file has what the campaign was after the file before it,
        # and a value that another writer has replaced and logged meanwhile is not put again.
        campaign = runtime.campaigns.require_id(campaign_id)
        on_step("campaigns.after_reading")
        if record and _is_committed(runtime, campaign_id):
            return record
        if not (record and campaign.unit_key_hash and campaign.code_key):
            keys = ensure_keys(runtime, campaign)
            campaign = replace(campaign, unit_key_hash=keys.unit_key_hash, code_key=keys.code_key)
        reason = _reason(campaign, record[-1]) if record else ""
        if proposal is not None:
            require_unchanged(campaign, proposal.before)
            campaign, reason = campaign.defined_as(proposal.after), proposal.reason
        terms = terms_of(runtime, campaign)
        if record and record[-1].terms == terms:
            return record
        new = terms.amending(record[-1], reason) if record else terms
        _require_loggable(runtime, record, new)
        # Another writer may have been faster: then the next one follows that file.
        if runtime.objects.put_once(_key(campaign_id, len(record)), new.to_bytes()) == new.to_bytes():
            return (*record, new)
    raise TransientFailure("s3", f"{_ATTEMPTS} other writers came between")


def require_unchanged(campaign: Campaign, before: Campaign) -> None:
    """Raise UsageError unless the campaign has the definition and the status that it had before."""
    if (campaign.definition, campaign.status) != (before.definition, before.status):
        raise UsageError(
            f"campaign {campaign.campaign_id} was changed meanwhile: see what it is now, and repeat the correction"
        )


def _is_committed(runtime: Runtime, campaign_id: str) -> bool:
    """Whether the draw has a manifest: what follows it binds nothing. Strikes make the draw's document earlier."""
    record = runtime.draws.get(campaign_id)
    return record is not None and 1 in record.phases and bool(record.phases[1].manifest)


def _reason(campaign: Campaign, before: Opened) -> str:
    early = campaign.early_closing
    if early is None or early.at == before.closes_at:
        return AFTERWARDS
    return early.reason.strip() or "closed early"


def _require_loggable(runtime: Runtime, record: tuple[Opened, ...], new: Opened) -> None:
    """Raise UsageError for a file that no reader would take, and name that in the campaign's document: until it is
    changed, no further run is needed to find the same.
    """
    if wrong := _wrong(record, new):
        how = "was changed" if record else "opened"
        why = f"campaign {new.campaign_id} cannot be in the public log as it {how}: {wrong}"
        runtime.campaigns.set_refused(new.campaign_id, RefusedTerms(_identity(new.terms), why))
        raise UsageError(why)


def _wrong(record: tuple[Opened, ...], new: Opened) -> str:
    """Why `new` cannot follow `record`, and the way out; empty if it can."""
    for each in unchangeable(record[-1], new) if record else ():
        where = "the settings (selection.beacon)" if each.field == "chain" else _DOCUMENT
        return (
            f"{each.field} may never change, and is {each.now} instead of {each.before}. Set it back in {where}, or"
            " create another campaign for the new value"
        )
    try:
        new.to_bytes()
    except DrawError as error:
        return f"{error.message}. Correct {_DOCUMENT}"
    return ""


def recorded(objects: ObjectStore, campaign_id: str) -> tuple[Opened, ...]:
    """The files about a campaign, in order. Raises DrawError for one that does not follow the one before."""
    return parse_opened(list(_files(objects, campaign_id)))


def _files(objects: ObjectStore, campaign_id: str) -> Iterator[bytes]:
    number = 0
    while (tagged := objects.get_tagged(_key(campaign_id, number))) is not None:
        yield tagged.data
        number += 1


def _key(campaign_id: str, number: int) -> str:
    return f"draws/{campaign_id}/{opened_name(number)}"


@dataclass(frozen=True, slots=True)
class LoggingRound:
    """What `log_open` did."""

    # The campaigns that are in the published log now, and were not.
    logged: tuple[str, ...]
    # Why a campaign is not, by its id.
    problems: Mapping[str, str]
    # Why the log can never have a campaign as it is, by the id of each of which an earlier run found that.
    refused: Mapping[str, str]


def log_open(runtime: Runtime) -> LoggingRound:
    """Log every OPEN campaign as it is now, and publish the log. One that cannot be logged does not hold up the others.
    Raises TransientFailure if MongoDB does not answer.
    """
    decided: dict[str, LoggedTerms] = {}
    problems: dict[str, str] = {}
    campaigns = runtime.campaigns.list(CampaignStatus.OPEN)
    refused = {each.campaign_id: why for each in campaigns if (why := why_refused(runtime, each))}
    for campaign in campaigns:
        if waits_for_log(runtime, campaign):
            try:
                with campaign_lease(runtime, campaign.campaign_id, "log"):
                    # A correction that is logged and not yet written is over. The lease is not held any longer, because
                    # a closing does not wait for the log.
                    pass
                decided[campaign.campaign_id] = decide(runtime, campaign.campaign_id)
            except (TransientFailure, UsageError, DrawError) as error:
                problems[campaign.campaign_id] = str(error)
    if decided and (why := publish(runtime, decided)):
        problems |= dict.fromkeys(decided, why)
    return LoggingRound(tuple(each for each in decided if each not in problems), problems, refused)


def publish(runtime: Runtime, decided: dict[str, LoggedTerms]) -> str:
    """Publish these; returns why they still wait."""
    try:
        waiting: NotWitnessed | None = PublicLog.of(runtime).publish()
    except (TransientFailure, UsageError, DrawError) as error:
        return str(error)
    if waiting is not None:
        return str(waiting)
    for campaign_id, logged in decided.items():
        runtime.campaigns.set_opened(campaign_id, logged)
        runtime.campaign_cache.forget(runtime.campaigns.require_id(campaign_id))
    return ""


@dataclass(frozen=True, slots=True)
class Moved:
    """The result of `open_campaign` and `close_campaign`."""

    advanced: Advanced
    # Why the published log does not have the campaign as it is yet; empty if it has.
    not_logged: str


def open_campaign(runtime: Runtime, campaign_id: str, *, reason: str, run_id: str) -> Moved:
    """Log a draft, then open it as it was logged; a log that cannot be written within some seconds is left to the next
    run that logs campaigns.

    Raises UsageError if the campaign's keys cannot be read back, and as `advance`.
    """
    campaign = runtime.campaigns.require_id(campaign_id)
    logged: LoggedTerms | str = ""
    advanced = None
    if campaign.status is CampaignStatus.DRAFT:
        ensure_keys(runtime, campaign)
        # A correction of the draft comes before its leaf, or after it is open.
        with campaign_lease(runtime, campaign_id, run_id) as lease:
            logged = _decided(runtime, campaign_id)
            # From here on its entries are known without a count.
            count_entries(runtime, [campaign_id])
            advanced = advance_under(
                runtime, lease, campaign_id, CampaignStatus.OPEN, reason=reason, run_id=run_id
            )
    if advanced is None:
        advanced = advance(runtime, campaign_id, CampaignStatus.OPEN, reason=reason, run_id=run_id)
    return Moved(advanced, logged if isinstance(logged, str) else publish(runtime, {campaign_id: logged}))


def close_campaign(runtime: Runtime, campaign_id: str, *, reason: str, run_id: str) -> Moved:
    """End the registration. One that ends before the `closesAt` in the log is logged with its true end, before its draw
    commits: else the list of entries would count as frozen too early. Raises as `advance`.
    """
    advanced = advance(runtime, campaign_id, CampaignStatus.CLOSED, reason=reason, run_id=run_id)
    campaign = runtime.campaigns.require_id(campaign_id)
    if campaign.opened is None or is_logged(runtime, campaign):
        return Moved(advanced, "")
    logged = _decided(runtime, campaign_id)
    return Moved(advanced, logged if isinstance(logged, str) else publish(runtime, {campaign_id: logged}))


def _decided(runtime: Runtime, campaign_id: str) -> LoggedTerms | str:
    """What the log has of the campaign now; or why that was not decided within some seconds."""
    late = scheduling.monotonic() + _FIRST_SECONDS
    try:
        return result_by(run_in_thread(partial(decide, runtime, campaign_id), name="log"), late)
    except (NoAnswer, TransientFailure, UsageError, DrawError) as error:
        return str(error) or f"the log did not answer within {_FIRST_SECONDS:g} s"
