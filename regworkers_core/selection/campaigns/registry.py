"""Creates campaigns from definitions, and advances their status: DRAFT, OPEN, CLOSED, PROCESSING, COMPLETED; forward
only, one step at a time, each once.

A step is made under the lease `campaign-<id>` and its fencing token: a run that lost the lease cannot change the
status. Another lease is that of the campaign's draw: who draws, plans, voids codes or sends messages holds it.

A definition is a YAML or JSON file, or an input, with the fields of the contract. A stored document may have fields of
other services, but a definition may not: an unknown field is a typing error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fairdraw.documents import as_document, camel
from fairdraw.maths.manifest import MarketTerms, ReserveTerms
from regworkers_core.adapters.mongo.draws import Fenced, lease_name
from regworkers_core.domain.campaign import Campaign, CampaignStatus, Market, RegistrationLog
from regworkers_core.domain.campaign_reader import brief, read_campaign
from regworkers_core.domain.claim import InviteType
from regworkers_core.domain.eligibility import TERMS
from regworkers_core.domain.keys import has_control, is_encodable, is_selection_id
from regworkers_core.domain.reasons import RequestError, TransientFailure, UsageError
from regworkers_core.domain.selection import DrawBusy
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import Lease, LeaseBusy, held_lease
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.runtime import Runtime

# The tokens of a recreated lease table start from 1 again; each try increments them.
_MAX_TRIES = 200
_MAX_REASON_CHARS = 500


@dataclass(frozen=True, slots=True)
class Advanced:
    """The result of `advance`."""

    campaign_id: str
    status: CampaignStatus
    # False when the campaign had the status already; then the fields below are those of the earlier step, empty when
    # the campaign was created with its status.
    changed: bool
    # When it got the status.
    at: str
    reason: str
    run_id: str

    def as_dict(self) -> dict[str, Any]:
        return {name: None if value == "" else value for name, value in as_document(self).items()}


def advance(
    runtime: Runtime,
    campaign_id: str,
    to: CampaignStatus,
    *,
    reason: str,
    run_id: str,
    on_step: OnStep = no_step,
) -> Advanced:
    """Move the campaign to the next status `to`. Of several concurrent or repeated calls, one makes the step.

    Raises UsageError for a step backwards or over another one and for an unknown campaign, TransientFailure while
    another run holds the lease.
    """
    for _ in range(_MAX_TRIES):
        campaign = runtime.campaigns.require_id(campaign_id)
        if not _allowed(campaign, to):
            return _unchanged(runtime, campaign)
        with campaign_lease(runtime, campaign_id, run_id) as lease:
            on_step("campaigns.after_lease")
            advanced = advance_under(runtime, lease, campaign_id, to, reason=reason, run_id=run_id)
        if advanced is not None:
            return advanced
    raise UsageError(
        f"campaign {campaign_id} was moved under token {campaign.fence}, and `{runtime.names.lease_table}` is "
        "far behind: was another table restored? Wait for the right one, or clear the campaign's `fence`"
    )


def advance_under(
    runtime: Runtime, lease: Lease, campaign_id: str, to: CampaignStatus, *, reason: str, run_id: str
) -> Advanced | None:
    """Do as `advance` under its lease, which is held; None if a greater token than that of the lease has written."""
    # The previous holder of the lease may have made this step.
    campaign = runtime.campaigns.require_id(campaign_id)
    if not _allowed(campaign, to):
        return _unchanged(runtime, campaign)
    at = iso(runtime.clock())
    if not runtime.campaigns.advance(
        campaign_id, campaign.status, to, token=lease.token, at=at, reason=reason, run_id=run_id
    ):
        return None
    runtime.campaign_cache.forget(campaign)
    return Advanced(campaign_id, to, True, at, reason, run_id)


def close_if_due(runtime: Runtime, campaign_id: str, *, run_id: str) -> bool:
    """Close the campaign if it is OPEN with `autoDraw` and its `closesAt` has passed. Returns whether this call did.
    Raises as `advance`.
    """
    campaign = runtime.campaigns.require_id(campaign_id)
    over = campaign.auto_draw and campaign.closes_at <= iso(runtime.clock())
    if campaign.status is not CampaignStatus.OPEN or not over:
        return False
    return advance(
        runtime, campaign_id, CampaignStatus.CLOSED, reason="closesAt passed", run_id=run_id
    ).changed


def _allowed(campaign: Campaign, to: CampaignStatus) -> bool:
    """Whether `to` is the next status; False when it is the current one. Raises UsageError for any other."""
    if campaign.status is to:
        return False
    following = campaign.status.next
    if following is to:
        return True
    rule = f"only {following} can follow" if following else "nothing follows"
    raise UsageError(f"campaign {campaign.campaign_id} is {campaign.status} and cannot become {to}: {rule}")


def _unchanged(runtime: Runtime, campaign: Campaign) -> Advanced:
    # The run that made the step may have died before it updated the cache.
    runtime.campaign_cache.forget(campaign)
    last = campaign.transitions[-1] if campaign.transitions else None
    return Advanced(
        campaign.campaign_id,
        campaign.status,
        False,
        last.at if last else "",
        last.reason if last else "",
        last.run_id if last else "",
    )


@contextmanager
def campaign_lease(runtime: Runtime, campaign_id: str, run_id: str) -> Iterator[Lease]:
    """Hold the lease under which a campaign's document is changed. Raises TransientFailure while another run does."""
    try:
        with held_lease(
            runtime.leases,
            f"campaign-{campaign_id}",
            run_id,
            lease_seconds=runtime.settings.selection.lease_seconds,
        ) as lease:
            yield lease
    except LeaseBusy as busy:
        raise TransientFailure("leases", str(busy)) from None


@contextmanager
def draw_lease(runtime: Runtime, campaign_id: str, run_id: str) -> Iterator[Lease]:
    """Hold the lease of a campaign's draw. Raises DrawBusy while another run holds it and when one took it over,
    UsageError when the lease table is behind the draw, TransientFailure.
    """
    try:
        with held_lease(
            runtime.leases,
            lease_name(campaign_id),
            run_id,
            lease_seconds=runtime.settings.selection.lease_seconds,
        ) as lease:
            try:
                yield lease
            except Fenced:
                busy = DrawBusy(campaign_id)
                raise table_behind(runtime, campaign_id, lease) or busy from None
    except LeaseBusy:
        raise DrawBusy(campaign_id) from None


def table_behind(runtime: Runtime, campaign_id: str, lease: Lease) -> UsageError | None:
    """Return the error for a run that was fenced although it still holds its lease: the lease table was recreated, or
    restored from an old copy, and its tokens are lower than the draw's. None when another run took over. Raises
    TransientFailure.
    """
    if not lease.renew():
        return None
    record = runtime.draws.get(campaign_id)
    seen = "another" if record is None else str(record.token)
    return UsageError(
        f"the draw of {campaign_id} was written under token {seen}, and `{runtime.names.lease_table}` is only at"
        f" {lease.token}: was another table restored? Wait for the right one, or set `token` of the draw's document"
        " to 0"
    )


_FIELDS = frozenset({"campaignId", "slug", "name", "opensAt", "closesAt", "eligibility"})
_FIELDS |= {"markets", "autoDraw", "draw", "eventId", "issuerKeys", "codes", "registration"}
_DRAW = frozenset({"winsPerUnit", "waitlistSize"})
_CODES = frozenset({"caseless", "expireAfterHours"})
_REGISTRATION = frozenset({"log"})
_ISSUER_KEY = frozenset({"id", "key"})
_MARKET = frozenset({"marketId", "name", "capacity", "reserves", "laterReserves"})
_RESERVE = frozenset({"segment", "seats"})
_ELIGIBILITY = frozenset(map(camel, TERMS))
_FLAG = "true or false"
# Fields with a few values, one of which is meant by a field that is absent.
_CHOICES = {
    "autoDraw": _FLAG,
    "codes.caseless": _FLAG,
    "eligibility.inviteOnly": _FLAG,
    "eligibility.inviteTypes": f"a list of {', '.join(InviteType)}",
    "eligibility.requireVerifiedPhone": _FLAG,
    "registration": "{log: on} or {log: off}",
    "registration.log": " or ".join(RegistrationLog),
}


class _Loader(yaml.SafeLoader):
    """Reads times as text: the parser of the campaign checks them, and knows the field. Refuses aliases, by which a
    short text takes all memory, and numbers that no field can hold.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem_mark=self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        return super().compose_node(parent, index)

    def construct_yaml_int(self, node: Any) -> int:
        if len(node.value) > _MOST_DIGITS:
            raise yaml.MarkedYAMLError(problem_mark=node.start_mark)
        return super().construct_yaml_int(node)


_MOST_DIGITS = 64
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_DATE = re.compile(r"\d{4}-?\d{2}-?\d{2}", re.ASCII)


def read_definition(path: Path) -> dict[str, Any]:
    """Read the fields in a YAML or JSON file. Raises UsageError with file and line."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8 text") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UsageError(
            f"{path}: not valid YAML or JSON without aliases{f' in line {mark.line + 1}' if mark else ''}"
        ) from None
    except (RecursionError, ValueError):
        raise UsageError(f"{path}: nested too deeply, or with a value that no field can hold") from None
    if not isinstance(document, dict):
        raise UsageError(f"{path}: should hold the fields of one campaign (campaignId, name, ...)")
    return document


def draft(fields: Mapping[str, Any]) -> Campaign:
    """Return a new campaign in DRAFT. Raises UsageError with the field, what was found and what is allowed."""
    _only(fields, _FIELDS, "")
    for name in ("opensAt", "closesAt"):
        if _DATE.fullmatch(str(fields.get(name))):
            raise UsageError(
                f"{name} must have a time, as {fields[name]}T18:00:00+01:00: found the date {fields[name]} alone"
            )
    _only(_mapping(fields.get("draw")), _DRAW, "draw.")
    _only(_mapping(fields.get("codes")), _CODES, "codes.")
    _only(_mapping(fields.get("registration")), _REGISTRATION, "registration.")
    for index, key in enumerate(_list(fields.get("issuerKeys"))):
        _only(_mapping(key), _ISSUER_KEY, f"issuerKeys[{index}].")
    for index, market in enumerate(_list(fields.get("markets"))):
        _only(_mapping(market), _MARKET, f"markets[{index}].")
        for name in ("reserves", "laterReserves"):
            for number, reserve in enumerate(_list(_mapping(market).get(name))):
                _only(_mapping(reserve), _RESERVE, f"markets[{index}].{name}[{number}].")
    _only(_mapping(fields.get("eligibility")), _ELIGIBILITY, "eligibility.")
    _require_choices(fields)
    document = {name: value for name, value in fields.items() if name != "campaignId"}
    # Checked here, because errors of the stored document name it `_id`.
    if "campaignId" not in fields:
        raise UsageError("campaignId is missing: give the campaign an id")
    campaign_id = fields["campaignId"]
    if not isinstance(campaign_id, str) or not is_selection_id(campaign_id):
        raise UsageError("campaignId must be 1 to 64 of the characters A-Z a-z 0-9 _ -")
    return read_campaign({**document, "_id": campaign_id, "status": CampaignStatus.DRAFT})


def _require_choices(fields: Mapping[str, Any]) -> None:
    """Refuse a choice that a file names and leaves empty: its default is another promise than its author may mean."""
    for where, values in _CHOICES.items():
        section, _, name = where.rpartition(".")
        given = _mapping(fields.get(section)) if section else fields
        if name in given and given[name] in (None, "", []):
            raise UsageError(
                f"{where} must be {values}, found {brief(given[name])}: give a value, or leave the field out"
            )


def _only(fields: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    unknown = sorted(str(name) for name in fields if name not in known)
    if unknown:
        raise UsageError(f"{where}{unknown[0]} is not a field; fields are {', '.join(sorted(known))}")


def _mapping(value: Any) -> Mapping[str, Any]:
    # The parser of the campaign rejects any other value.
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def create(runtime: Runtime, fields: Mapping[str, Any]) -> Campaign:
    """Create a campaign in DRAFT from the fields of a definition. Raises UsageError for wrong fields and for a taken id
    or slug.
    """
    campaign = draft(fields)
    taken = runtime.campaigns.get(campaign.campaign_id) or runtime.campaigns.find(campaign.slug)
    if taken is not None:
        raise UsageError(
            f"campaign {taken.campaign_id} has that id or slug already: "
            f"`regworkers campaign show {taken.campaign_id}`, or choose another"
        )
    runtime.campaigns.create(campaign)
    # It may have cached that there is no such campaign.
    runtime.campaign_cache.forget(campaign)
    return campaign


def published_terms(market: Market) -> MarketTerms:
    """The market as a manifest has it, and the record of its campaign."""
    reserves, later = (
        tuple(ReserveTerms(each.segment, each.seats) for each in kind)
        for kind in (market.reserves, market.later_reserves)
    )
    return MarketTerms(market.market_id, market.capacity, reserves, later)


def published_reason(text: str, whose: str) -> str:
    """Return an operator's reason as it is published, without surrounding space. Raises RequestError unless it is one
    line of 1 to _MAX_REASON_CHARS characters.
    """
    reason = text.strip()
    if not reason:
        raise RequestError(f"{whose} needs a reason: it is published")
    if len(reason) > _MAX_REASON_CHARS or not is_encodable(reason) or has_control(reason):
        raise RequestError(
            f"the reason of {whose} is published: it should be one line of at most {_MAX_REASON_CHARS} characters"
        )
    return reason
