"""Create, open, close and show campaigns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from fairdraw.documents import as_document, camel
from fairdraw.maths.opened import IN_TIME_SECONDS
from regworkers_core.adapters.mongo.draws import DrawRecord
from regworkers_core.domain.campaign import (
    LEAST_ROUND_HOURS,
    Campaign,
    CampaignStatus,
    PassOn,
    RegistrationLog,
    Reserve,
)
from regworkers_core.domain.eligibility import TERMS
from regworkers_core.domain.keys import is_selection_id, quoted
from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_core.domain.selection import market_in_words, require_word
from regworkers_core.domain.timestamps import duration, iso, seconds, to_second
from regworkers_core.drains.live_entries import entries_over_time
from regworkers_core.operation import (
    CHANGES_CAMPAIGNS,
    Call,
    Effect,
    Face,
    GivenFile,
    Input,
    OfCampaign,
    Remark,
    Report,
    Seats,
    SegmentSeats,
    Table,
    operation,
)
from regworkers_core.selection.campaigns import registry
from regworkers_core.selection.campaigns.opening import Moved, close_campaign, log_open, open_campaign
from regworkers_core.selection.campaigns.registry import read_definition
from regworkers_core.selection.codes.stock import seats_of

if TYPE_CHECKING:
    from regworkers_core.selection.status import CampaignReport


# That of RFC 8032, 7.1.
_EXAMPLE_KEY = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


class CreateCampaign(Input):
    """A rule that is empty does not restrict; the other fields have defaults."""

    first: ClassVar[tuple[str, ...]] = ("opens_at", "closes_at", "capacities", "name")
    campaign_id: str = Field(
        "", description="1 to 64 of A-Z a-z 0-9 _ -, for example spring-tour; it never changes."
    )
    opens_at: str = Field(
        "", description="When the registration begins: 2027-02-01T09:00:00+01:00; UTC if no zone is given."
    )
    closes_at: str = Field("", description="When it ends, in the same form.")
    capacities: Seats = Field({}, description="Per market its seats. At least one market.")
    reserves: SegmentSeats = Field(
        {}, description="Per market the seats reserved for a segment, in precedence order."
    )
    later_reserves: SegmentSeats = Field(
        {},
        description="Per market the most seats that all later phases may keep for a segment, in precedence order.",
    )
    auto_draw: bool = Field(
        False,
        description="Close and draw automatically after the closing time; the publication waits for you.",
    )
    name: str = Field("", description="The display name. Empty: the slug.")
    slug: str = Field("", description="The name in links. Empty: the id.")
    market_names: dict[str, str] = Field(
        {}, description="Per market its display name. Empty: its id.", examples=[{"berlin": "Berlin Arena"}]
    )
    wins_per_unit: int = Field(1, description="How many entries of one household may win.")
    waitlist_size: int | None = Field(
        None, description="The size of the waiting list. Empty: all who did not win."
    )
    event_id: str = Field(
        "", description="The id of the event, the same in all campaigns for its seats. Empty: none."
    )
    caseless_codes: bool = Field(False, description="Codes are compared with A-Z as a-z.")
    codes_expire_after_hours: int | None = Field(
        None, description="How long a code holds from when its winner may be notified. Empty: for ever."
    )
    registration_log: bool = Field(
        False,
        description="Put each registration into a public tree at once, so that fans see before the draw that they are "
        "in. It cannot be switched off later.",
    )
    issuer_keys: dict[str, str] = Field(
        {},
        description="By its id each Ed25519 key, 64 hex digits, by which the issuer of the codes signs.",
        examples=[{"issuer-1": _EXAMPLE_KEY}],
    )
    invite_only: bool = Field(False, description="Only invited fans may enter: upload their invites.")
    invite_types: list[str] = Field(
        [], description="Which invites count: email, globalUserId, memberId. Empty: all of them."
    )
    regions: list[str] = Field([], description="The countries whose residents may enter, as DE. Empty: all.")
    min_age: int | None = Field(
        None, description="The minimum age at registration, in years. Empty: no limit."
    )
    require_verified_phone: bool = Field(False, description="Only fans with a verified phone.")
    max_per_unit: int | None = Field(None, description="The most entries of one household. Empty: no limit.")
    upload: GivenFile = Field(
        "",
        description="Instead of all other fields: a definition in YAML or JSON, as docs/examples/campaign.yml.",
    )


class SetPassOn(OfCampaign):
    rounds: int = Field(ge=0, description="How many rounds at most; 0: no further one.")
    every_hours: int = Field(
        LEAST_ROUND_HOURS, description="The least time from the publication of a phase to the next round."
    )
    quiet: str = Field(
        "", description="When no round begins, by local time: 22:00-08:00 Europe/Berlin. Empty: at any hour."
    )


class CampaignsOf(Input):
    words = ()
    status: CampaignStatus | None = Field(None, description="Only campaigns of this status.")


class MoveCampaign(OfCampaign):
    reason: str = Field("by a person", description="Why, in words: no fan's data. Kept with the change.")


class CloseCampaign(MoveCampaign):
    dry_run: bool = Field(False, description="Show only what would end, and how early.")


def _created_id(face: Face, given: CreateCampaign) -> str:
    return str(_definition(face, given).get("campaignId", ""))


@operation(
    "campaign create",
    "create_campaign",
    Effect.ADD,
    duty="selection",
    role="manager",
    asset="campaigns",
    target=_created_id,
    uses=CHANGES_CAMPAIGNS,
)
def create(call: Call, given: CreateCampaign) -> Report:
    """Create a campaign in DRAFT, from a file or from fields.

    No fan can enter before it is opened. Until then it can be corrected in everything, later in little. Refuses an id
    or slug that is taken, and names a wrong field.
    """
    with named_as_given(call.face, given, [*given.capacities]):
        created = registry.create(call.runtime, _definition(call.face, given))
    campaign_id = created.campaign_id
    call.face.found(campaign_id)
    opens = call.face.name_of("campaign open", campaign_id)
    said = (
        f"load codes with {call.face.name_of('codes import', f'FILE --campaign {campaign_id}')}, then {opens}"
    )
    if created.opens_at <= iso(call.runtime.clock()):
        said = f"opensAt ({created.opens_at}) has passed: start the registration with {opens}"
    if created.opens_at <= iso(call.runtime.clock() - IN_TIME_SECONDS):
        said += (
            f". The public log will show for ever that it was logged more than {IN_TIME_SECONDS // 60} minutes late:"
            " unless fans know this time, create another campaign with a later one"
        )
    return described(created, said=[said], changed=True)


@operation("campaign show")
def show(call: Call, given: OfCampaign) -> Report:
    """Show a campaign: times, markets, rules, and changes of status."""
    return described(call.campaign(given.campaign_id))


@operation("campaign list")
def list_(call: Call, given: CampaignsOf) -> Report:
    """List all campaigns by id."""
    found = call.runtime.campaigns.list(given.status)
    draws = {record.campaign_id: record for record in call.runtime.draws.all()}
    document = [
        {
            "campaignId": each.campaign_id,
            "name": each.name,
            "status": each.status.value,
            "opensAt": each.opens_at,
            "closesAt": each.takes_entries_until,
            "markets": len(each.markets),
            "capacity": sum(seats_of(each, draws.get(each.campaign_id)).values()),
            "annulled": _annulled(draws.get(each.campaign_id)),
            "autoDraw": each.auto_draw,
        }
        for each in found
    ]
    lines = [
        (
            each["campaignId"],
            each["name"],
            "annulled" if each["annulled"] else each["status"],
            # Days only, so that a row fits on a terminal. The campaign itself has the times.
            *(str(each[name]).partition("T")[0] for name in ("opensAt", "closesAt")),
            each["capacity"],
        )
        for each in document
    ]
    columns = ("campaign", "name", "status", "opens", "closes", "seats")
    return Report(document=document, facts={}, tables=[Table("", columns, lines)])


@operation(
    "campaign open",
    "open_campaign",
    Effect.ADD,
    duty="selection",
    role="manager",
    asset="campaigns",
    uses=CHANGES_CAMPAIGNS,
)
def open_(call: Call, given: MoveCampaign) -> Report:
    """Open a draft for registration, after what it promises is put into the public log. An open campaign is left
    unchanged.

    It opens also while the log cannot be written: the job `log_campaigns` follows then. Refuses a campaign whose keys
    cannot be read back.
    """
    campaign = call.campaign(given.campaign_id)
    done = open_campaign(call.runtime, campaign.campaign_id, reason=given.reason, run_id=call.run_id)
    advice = f"it is logged within a minute, or by {call.face.name_of('campaign log')}"
    return _moved(done, f"fans register until {to_second(campaign.closes_at)} UTC", advice)


@operation(
    "campaign log", "log_campaigns", Effect.ADD, duty="selection", asset="campaigns", uses=CHANGES_CAMPAIGNS
)
def log(call: Call, given: Input) -> Report:
    """Put what each open campaign promises into the public log, and what was changed of that since.

    The sensor `watch_campaigns` starts it. Fails if a campaign cannot be logged; one that never can be as it is, which
    an earlier run found, is shown as a finding.
    """
    done = log_open(call.runtime)
    return Report(
        document=as_document(done),
        facts={"logged": ", ".join(done.logged) or None},
        remarks=[Remark("finding", why) for why in done.refused.values()],
        left="; ".join(f"{name}: {why}" for name, why in done.problems.items()),
        pending=bool(done.refused),
        counts={"logged": len(done.logged), "notLogged": len(done.problems) + len(done.refused)},
        changed=bool(done.logged),
    )


@operation(
    "campaign close",
    "close_campaign",
    Effect.ADD,
    duty="selection",
    role="manager",
    asset="campaigns",
    uses=CHANGES_CAMPAIGNS,
    instant=True,
)
def close(call: Call, given: CloseCampaign) -> Report:
    """End the registration for good; the draw is next. A closed campaign is left unchanged.

    One that ends before its closing time is put into the public log with its true end, after the person at a terminal
    or at the desk has typed its id.

    A campaign that draws automatically is closed by itself once its closing time has passed.
    """
    campaign = call.campaign(given.campaign_id)
    if not call.apply:
        return _ending(call, campaign, given.reason)
    if call.face.waits and campaign.status is CampaignStatus.OPEN:
        seen = _ending(call, campaign, given.reason)
        if seen.word and (typed := call.face.ask(seen)):
            require_word(typed, seen.word)
    done = close_campaign(call.runtime, campaign.campaign_id, reason=given.reason, run_id=call.run_id)
    advice = f"repeat {call.face.name_of('campaign close')} before the draw commits"
    return _moved(done, f"the registration is over: {call.face.name_of('draw run')} is next", advice)


def _ending(call: Call, campaign: Campaign, reason: str) -> Report:
    """What a closing would end now. One that comes early has a word, because nothing opens a campaign again. Raises
    RequestError for a campaign that is not open.
    """
    if campaign.status is not CampaignStatus.OPEN:
        raise RequestError(
            f"campaign {campaign.campaign_id} is {campaign.status}: only an open one is closed"
        )
    left = (seconds(campaign.closes_at) or 0.0) - call.runtime.clock()
    when = f"{duration(left)} before its closing time" if left > 0 else "after its closing time"
    facts = as_document(campaign, "campaign_id", "status", "closes_at")
    facts["entries"] = entries_over_time(call.runtime, campaign.campaign_id).total
    return Report(
        document={**facts, "changed": False, "at": None, "reason": reason, "runId": call.run_id},
        facts=facts,
        said=[f"the registration would end now, {when}; it cannot be opened again"],
        pending=True,
        word=campaign.campaign_id if left > 0 else "",
        question=f"end the registration {when}",
    )


@operation(
    "campaign pass-on",
    "set_pass_on",
    Effect.DELETE,
    duty="selection",
    role="manager",
    asset="campaigns",
    uses=CHANGES_CAMPAIGNS,
    instant=True,
)
def pass_on(call: Call, given: SetPassOn) -> Report:
    """Let seats that no one claimed pass on by themselves: further phases, drawn and published without a person.

    A round begins once codes have expired, and their issuer has blocked them and stated all redemptions until then.
    A finding of the gate stops a round. Refused without keys of the issuer, and where a winner has less than a day.
    """
    campaign = call.campaign(given.campaign_id)
    terms = PassOn(given.rounds, given.every_hours, given.quiet) if given.rounds else None
    hours = campaign.codes.expire_after_hours
    if terms and terms.problem:
        raise RequestError(terms.problem)
    if terms and not campaign.issuer_keys:
        raise RequestError(
            f"{campaign.campaign_id} names no key of the issuer (`issuerKeys`), so that no one could prove that a"
            " code was not used"
        )
    if terms and (hours is None or hours < LEAST_ROUND_HOURS):
        raise RequestError(
            f"codes of {campaign.campaign_id} do not expire, or in less than {LEAST_ROUND_HOURS} hours"
            " (`codes.expireAfterHours`): no seat would lapse, or without a day to claim it"
        )
    if call.apply:
        if not call.runtime.campaigns.set_pass_on(campaign, terms):
            raise RequestError(f"{campaign.campaign_id} was changed meanwhile: look again")
        call.runtime.campaign_cache.forget(campaign)
    new = as_document(terms) if terms else None
    return Report(
        document={
            "campaignId": campaign.campaign_id,
            "before": as_document(campaign.pass_on) if campaign.pass_on else None,
            "passOn": new,
        },
        facts={"before": campaign.pass_on and as_document(campaign.pass_on), "passOn": new},
        counts={"rounds": given.rounds},
        word=campaign.campaign_id,
        question=f"up to {given.rounds} rounds will be published without a person"
        if terms
        else "no further round will begin by itself",
        pending=not call.apply,
        changed=call.apply,
    )


@operation("campaign status", "campaign_status", duty="selection", role="manager", asset="campaigns")
def status(call: Call, given: OfCampaign) -> Report:
    """Show entries, codes and seats, each phase of the draw and messages of a campaign; and what does not continue by
    itself, with what helps. Fails if an operator has to act.
    """
    # Late, for it brings drivers.
    from regworkers_core.selection.draw.commitment import in_words
    from regworkers_core.selection.status import read_campaign_status

    report = read_campaign_status(call.runtime, call.campaign(given.campaign_id))
    document = report.as_dict()
    names = ("marketId", "capacity", "available", "assigned", "redeemed", "void", "missing")
    columns = ("market", "seats", "available", "assigned", "redeemed", "void", "missing")
    codes = [[stock[name] for name in names] for stock in document["codes"]]
    to_do = [(each.text, each.command, each.job) for each in report.findings]
    findings = [each.text + (f" (job `{each.job}`)" if each.job else "") for each in report.findings]
    return Report(
        document=document,
        facts=_facts(report),
        tables=[
            Table("codes", columns, codes),
            Table(
                "draw", ("phase", "market", "status", "planned", "written", "messages sent"), _phases(report)
            ),
            Table("to do", ("finding", "command", "job"), to_do),
        ],
        said=[
            in_words(number, each)
            for number, each in (document["draw"] or {}).items()
            if each["manifestHash"]
        ],
        left=f"needs an operator: {'; '.join(findings)}" if findings else "",
    )


def described(campaign: Campaign, **more: Any) -> Report:
    """The campaign as an answer; `more` are further fields of the report."""
    document = campaign.as_document()
    document = {"campaignId": document.pop("_id"), **document}
    names = ("campaign_id", "name", "slug", "status", "opens_at")
    markets = [
        (
            each.market_id,
            each.name,
            each.capacity,
            _in_words(each.reserves),
            _in_words(each.later_reserves),
        )
        for each in campaign.markets
    ]
    columns = ("from", "to", "at", "reason", "runId")
    changes = [[each[name] for name in columns] for each in document.get("transitions", ())]
    return Report(
        document=document,
        facts={
            **as_document(campaign, *names),
            **_closing(campaign),
            **as_document(campaign, "auto_draw", "event_id"),
            "seats": sum(each.capacity for each in campaign.markets),
            "eligibility": document["eligibility"],
            "codes": {name: value for name, value in document["codes"].items() if value is not None},
            "registration": document["registration"],
            "openedHash": campaign.opened and campaign.opened.hash,
            "corrected": campaign.corrected_at,
            **as_document(campaign.draw, "wins_per_unit", "waitlist_size"),
        },
        tables=[
            Table("markets", ("market", "name", "seats", "reserved", "reserved later"), markets),
            Table("changes", columns, changes),
            Table("corrections", ("field", "before", "now", "at", "reason"), _corrections(campaign)),
        ],
        **more,
    )


def _corrections(campaign: Campaign) -> list[tuple[str | None, ...]]:
    return [
        (one.field, one.before or None, one.now or None, each.at, each.reason or None)
        for each in campaign.amendments
        for one in each.changes
    ]


def _closing(campaign: Campaign) -> dict[str, str]:
    """When the registration ends, or ended, and why it ended early."""
    early = {"closedEarly": campaign.closed_early} if campaign.closed_early else {}
    return {"closesAt": campaign.takes_entries_until, **early}


def _in_words(reserves: Sequence[Reserve]) -> str | None:
    return ", ".join(f"{each.segment} {each.seats}" for each in reserves) or None


def _moved(done: Moved, said: str, advice: str) -> Report:
    problem, fields = f"not in the public log yet: {done.not_logged}", done.advanced.as_dict()
    remarks = [Remark("warning", problem, advice)] if done.not_logged else []
    changed = done.advanced.changed
    return Report(document=fields, counts=fields, changed=changed, remarks=remarks, said=[said])


def _definition(face: Face, given: CreateCampaign) -> Mapping[str, Any]:
    """The fields of the contract. Raises RequestError for fields that do not go together."""
    if given.upload:
        if given.model_dump(exclude={"upload"}, exclude_defaults=True):
            raise RequestError(
                f"{face.field('upload')} contains the whole campaign: leave all other fields out"
            )
        return read_definition(face.open(given.upload))
    if not given.campaign_id:
        raise RequestError(
            f"{face.field('campaign_id')} is missing: give the campaign's id, or a whole definition with "
            f"{face.field('upload')}"
        )
    require_seats(face, given)
    if given.invite_types and not given.invite_only:
        raise RequestError(
            f"{face.field('invite_types')} goes with {face.field('invite_only')}: without it, every fan may enter"
        )
    return changed_by(given, {"campaignId": given.campaign_id})


def require_seats(face: Face, given: CreateCampaign, known: Sequence[str] = ()) -> None:
    """Raise RequestError for a market that is named and neither known nor given seats, or whose name is no id."""
    named = {*given.reserves, *given.later_reserves, *given.market_names}
    if wrong := [name for name in (*given.capacities, *sorted(named)) if not is_selection_id(name)]:
        raise RequestError(
            f"the id of a market has 1 to 64 of the characters A-Z a-z 0-9 _ -, found {quoted(wrong[0])}"
        )
    if strays := sorted(named - given.capacities.keys() - {*known}):
        raise RequestError(f"market {quoted(strays[0])} has no seats: add it to {face.field('capacities')}")


# Where the definition has the fields whose names differ there.
_PLACES = {
    **{name: f"eligibility.{camel(name)}" for name in TERMS},
    "wins_per_unit": "draw.winsPerUnit",
    "waitlist_size": "draw.waitlistSize",
    "caseless_codes": "codes.caseless",
    "codes_expire_after_hours": "codes.expireAfterHours",
    "registration_log": "registration.log",
}
# Fields of a market by those of the form.
OF_MARKETS = {
    "capacities": "capacity",
    "market_names": "name",
    "reserves": "reserves",
    "later_reserves": "laterReserves",
}


def changed_by(given: CreateCampaign, definition: Mapping[str, Any]) -> dict[str, Any]:
    """The definition with the fields that were given, which are those that have another value than their default.
    Seats, names and reserves are those of the markets that are named.
    """
    changed = {**definition, "markets": [dict(each) for each in definition.get("markets", ())]}
    for name in CreateCampaign.model_fields:
        value, field = getattr(given, name), type(given).model_fields[name]
        if name in ("campaign_id", "upload") or value == field.get_default(call_default_factory=True):
            continue
        if name in OF_MARKETS:
            for market_id, each in value.items():
                market = _market_of(changed["markets"], market_id)
                market[OF_MARKETS[name]] = _reserves(each) if isinstance(each, Mapping) else each
            continue
        section, _, key = _PLACES.get(name, camel(name)).rpartition(".")
        if name == "registration_log":
            value = RegistrationLog.ON if value else RegistrationLog.OFF
        elif name == "issuer_keys":
            value = [{"id": id_, "key": each} for id_, each in value.items()]
        if section:
            changed[section] = {**changed.get(section, {}), key: value}
        else:
            changed[key] = value
    return changed


def without(names: Sequence[str], definition: Mapping[str, Any]) -> dict[str, Any]:
    """The definition without the fields that the form calls so, which then have their defaults. Raises RequestError for
    a name of none.
    """
    changed = dict(definition)
    for name in names:
        section, _, key = _PLACES.get(name, camel(name)).rpartition(".")
        if name in OF_MARKETS and name != "capacities":
            changed["markets"] = [
                {field: value for field, value in each.items() if field != OF_MARKETS[name]}
                for each in changed["markets"]
            ]
        elif section and section in changed:
            changed[section] = {field: value for field, value in changed[section].items() if field != key}
        elif key in changed and key not in ("markets", "opensAt", "closesAt"):
            del changed[key]
        else:
            raise RequestError(f"{quoted(name)} is no field that has a default")
    return changed


def _market_of(markets: list[dict[str, Any]], market_id: str) -> dict[str, Any]:
    """The market of this id, which is new where the definition has none."""
    for each in markets:
        if each["marketId"] == market_id:
            return each
    markets.append({"marketId": market_id})
    return markets[-1]


def _reserves(seats: Mapping[str, int]) -> list[dict[str, Any]]:
    return [{"segment": segment, "seats": number} for segment, number in seats.items()]


@contextmanager
def named_as_given(face: Face, given: CreateCampaign, markets: Sequence[str]) -> Iterator[None]:
    """What is wrong with a definition is said in the names of what the person gave. `markets` are its markets."""
    try:
        yield
    except UsageError as error:
        raise RequestError(_as_given(face, given, markets, str(error))) from None


def _as_given(face: Face, given: CreateCampaign, markets: Sequence[str], text: str) -> str:
    """What is wrong with a definition, in the names of what the person gave."""
    # Fields have no list of markets.
    for place, market_id in enumerate(markets):
        text = text.replace(f"markets[{place}].", f"market {market_id}: ")
    for name in () if given.upload else CreateCampaign.model_fields:
        field = re.compile(rf"(^|: )(?:eligibility\.|draw\.)?{camel(name)}\b")
        text = field.sub(lambda found, name=name: found[1] + face.field(name), text)  # type: ignore[misc]
    return text


def _annulled(record: DrawRecord | None) -> bool:
    return record is not None and bool(record.annulled)


def _facts(report: CampaignReport) -> dict[str, Any]:
    campaign, annulled = report.campaign, report.record.annulled if report.record else None
    return {
        "campaign": f"{campaign.campaign_id} ({campaign.name})",
        "status": campaign.status.value,
        "since": report.since,
        "opensAt": campaign.opens_at,
        **_closing(campaign),
        "entries": report.entries,
        "removed": report.tombstones,
        "replication": report.replication.in_words,
        **({"annulled": f"{annulled['annulledAt']}: {annulled['reason']}"} if annulled else {}),
        "registrations": "logged" if campaign.logs_registrations else "not logged",
        "messages": "paused" if report.notifications.get("paused") else "on",
        "findings": len(report.findings),
    }


def _phases(report: CampaignReport) -> list[list[object]]:
    lines: list[list[object]] = []
    for number, phase in report.record.phases.items() if report.record else ():
        lines.append([number, "", phase.status.value, "", "", ""])
        for market_id, numbers in phase.markets.items():
            sent = report.outbox.get(str(number), {}).get(market_id, {})
            counts = [numbers.get(name) for name in ("planned", "written")]
            wanted = sum(sent.values()) - sent.get("SUPERSEDED", 0)
            lines.append(
                [
                    number,
                    market_in_words(market_id),
                    numbers["status"],
                    *counts,
                    f"{sent.get('SENT', 0)} of {wanted}",
                ]
            )
    return lines
