"""Creates campaigns from definitions: YAML or JSON files, or options, with the fields of the contract.

A stored document may have fields of other services, but a definition may not: an unknown field is a typing error.
"""

from __future__ import annotations

import re
import secrets as randomness
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.secrets import Entropy, make_secret

_FIELDS = frozenset({"campaignId", "slug", "name", "opensAt", "closesAt", "eligibility"})
_FIELDS |= {"markets", "autoDraw", "draw"}
_DRAW = frozenset({"winsPerUnit", "waitlistSize"})
_MARKET = frozenset({"marketId", "name", "capacity", "reserves"})
_RESERVE = frozenset({"segment", "seats"})
_ELIGIBILITY = frozenset({"inviteOnly", "inviteTypes", "regions"})
_ELIGIBILITY |= {"minAge", "requireVerifiedPhone", "maxPerUnit"}


class _Loader(yaml.SafeLoader):
    """Reads times as text: the parser of the campaign checks them, and knows the field."""


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
            f"{path}: not valid YAML or JSON{f' in line {mark.line + 1}' if mark else ''}"
        ) from None
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
    for index, market in enumerate(_list(fields.get("markets"))):
        _only(_mapping(market), _MARKET, f"markets[{index}].")
        for number, reserve in enumerate(_list(_mapping(market).get("reserves"))):
            _only(_mapping(reserve), _RESERVE, f"markets[{index}].reserves[{number}].")
    _only(_mapping(fields.get("eligibility")), _ELIGIBILITY, "eligibility.")
    document = {name: value for name, value in fields.items() if name != "campaignId"}
    # Checked here, because errors of the stored document name it `_id`.
    if "campaignId" not in fields:
        raise UsageError("campaignId is missing: give the campaign an id")
    campaign_id = fields["campaignId"]
    if not isinstance(campaign_id, str) or not is_selection_id(campaign_id):
        raise UsageError(
            f"campaignId must be 1 to 64 of the characters A-Z a-z 0-9 _ -, found {str(campaign_id)[:80]!r}"
        )
    return Campaign.parse({**document, "_id": campaign_id, "status": CampaignStatus.DRAFT})


def from_options(
    campaign_id: str,
    *,
    markets: Sequence[str],
    reserves: Sequence[str],
    **fields: Any,
) -> dict[str, Any]:
    """Return the fields of a definition from options: markets as `berlin=500`, reserves as `berlin:loyal=50`, None for
    an option that was not given. Raises UsageError with the option.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in markets:
        market_id, capacity = _assignment("--market", text, "berlin=500")
        if market_id in found:
            raise UsageError(f"--market {text}: duplicate market {market_id}")
        found[market_id] = {"marketId": market_id, "capacity": capacity, "reserves": []}
    for text in reserves:
        target, seats = _assignment("--reserve", text, "berlin:loyal=50")
        market_id, _, segment = target.partition(":")
        if market_id not in found or not segment:
            raise UsageError(
                f"--reserve {text}: should name a market that --market gives, as berlin:loyal=50"
            )
        found[market_id]["reserves"].append({"segment": segment, "seats": seats})
    given = {name: value for name, value in fields.items() if value is not None}
    return {"campaignId": campaign_id, "markets": list(found.values()), **given}


def _assignment(option: str, text: str, example: str) -> tuple[str, int]:
    name, equals, number = text.partition("=")
    if not equals or not number.isascii() or not number.isdigit():
        raise UsageError(f"{option} should look like {example}, found {text!r}")
    return name, int(number)


def _only(fields: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    unknown = sorted(str(name) for name in fields if name not in known)
    if unknown:
        raise UsageError(f"{where}{unknown[0]} is not a field; fields are {', '.join(sorted(known))}")


def _mapping(value: Any) -> Mapping[str, Any]:
    # The parser of the campaign rejects any other value.
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def create(
    runtime: Runtime, fields: Mapping[str, Any], *, entropy: Entropy = randomness.token_bytes
) -> Campaign:
    """Create a campaign in DRAFT from the fields of a definition, and commit to its secret.

    The secret is stored before the campaign that names its hash: a repeat after a crash uses the same secret. Raises
    UsageError for wrong fields and for a taken id or slug.
    """
    campaign = draft(fields)
    taken = runtime.campaigns.get(campaign.campaign_id) or runtime.campaigns.find(campaign.slug)
    if taken is not None:
        raise UsageError(
            f"campaign {taken.campaign_id} has that id or slug already: "
            f"`regworkers campaign show {taken.campaign_id}`, or choose another"
        )
    commitment = make_secret(runtime, campaign.campaign_id, entropy=entropy)
    committed = replace(campaign.draw, commitment=commitment, committed_at=iso(runtime.clock()))
    campaign = replace(campaign, draw=committed)
    runtime.campaigns.create(campaign)
    # It may have cached that there is no such campaign.
    runtime.campaign_cache.forget(campaign)
    return campaign
