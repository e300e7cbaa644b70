"""What a draw decides and assigns: outcomes, keys, chunks, rows of the outbox, and the rounds of the public beacon.

Everything here is a pure function of the committed result, so a repeat gives the same names again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fairdraw.documents import as_document
from fairdraw.terms import LEAD_SECONDS as LEAD_SECONDS
from fairdraw.terms import NON_WINNERS as NON_WINNERS
from fairdraw.terms import QUICKNET as QUICKNET
from fairdraw.terms import Chain as Chain
from fairdraw.terms import Outcome as Outcome
from fairdraw.terms import is_market_id as is_market_id
from regworkers_core.domain.keys import is_selection_id, quoted
from regworkers_core.domain.reasons import Failure, PermanentFailure, Reason, RequestError

# Findings of the gate that a person may accept.
BIAS_AUDIT, LATE_COMMIT, RECOMMITTED, RECONCILE = "bias_audit", "late_commit", "recommitted", "reconcile"
EARLY_UNCLAIMED, REDEEMED_UNCLAIMED = "early_unclaimed", "redeemed_unclaimed"
ACCEPTABLE = (BIAS_AUDIT, LATE_COMMIT, RECOMMITTED, RECONCILE, EARLY_UNCLAIMED, REDEEMED_UNCLAIMED)
# A clock further behind the beacon would make all times of a draw wrong. A signature takes a second or two to arrive,
# and clocks under NTP differ by less.
MOST_BEHIND_SECONDS = 15
_HASH = re.compile(r"[0-9a-f]{64}")
# Internal files of draws in the object store, by campaign and phase.
PIPELINE = "pipeline/"
# Files that only the issuer of the codes may read.
ISSUER_FOLDER = "issuer"


def confirmation_word(campaign_id: str, phase: int) -> str:
    """What an operator types to confirm a change of a phase. It names the phase, so that a run that is executed again
    cannot confirm one that no person has seen.
    """
    return f"{campaign_id}:{phase}"


def require_word(given: str, word: str) -> None:
    """Raises RequestError for a word that is not the one that confirms."""
    if given != word:
        raise RequestError(f"the confirmation should be {word}, found {quoted(given)}: nothing was done")


def draw_key(campaign_id: str, name: str) -> str:
    """The key of a published file beside the phases."""
    return f"draws/{campaign_id}/{name}"


def public_key(campaign_id: str, phase: int, name: str) -> str:
    """The key of a published file of a phase."""
    return draw_key(campaign_id, f"phase-{phase}/{name}")


def pipeline_key(campaign_id: str, phase: int, name: str) -> str:
    """The key of an internal file, which may name entries or codes."""
    return f"{PIPELINE}{campaign_id}/phase-{phase}/{name}"


def issuer_key(campaign_id: str) -> str:
    """The key of the file for the issuer of a campaign's codes, the only one that may read it."""
    return f"{ISSUER_FOLDER}/{campaign_id}/codes.csv"


def report_key(campaign_id: str, phase: int, name: str) -> str:
    """The key of a file of the report, for operators."""
    return f"reports/{campaign_id}/phase-{phase}/{name}"


def market_in_words(market_id: str) -> str:
    """Return the market's id, or `others` for entries that won in no market."""
    return "others" if market_id == NON_WINNERS else market_id


class NoticeType(StrEnum):
    """The three kinds of messages to fans."""

    WINNER = "winner"
    WAITLISTED = "waitlisted"
    UNSELECTED = "unselected"


# A struck entry gets no message; one that the household's limit kept out gets that of the unselected.
NOTICES: Mapping[Outcome, NoticeType] = {
    Outcome.WINNER: NoticeType.WINNER,
    Outcome.WAITLIST: NoticeType.WAITLISTED,
    Outcome.UNSELECTED: NoticeType.UNSELECTED,
    Outcome.HOUSEHOLD_LIMIT: NoticeType.UNSELECTED,
}


@dataclass(frozen=True, slots=True)
class MarketPhase:
    """One market (or `-`) in one phase of a campaign's draw: what is planned, assigned and completed as one."""

    campaign_id: str
    market_id: str
    phase: int

    @property
    def prefix(self) -> str:
        """What the `_id` of its selections, outbox rows and chunks begins with."""
        return f"{self.campaign_id}:{self.market_id}:{self.phase}:"

    def key(self, ref: str) -> str:
        """`<campaignId>:<marketId>:<phase>:<ref>`: of a selection and of its outbox row, never of an attempt."""
        return self.prefix + ref

    def as_fields(self) -> dict[str, Any]:
        return {"campaignId": self.campaign_id, "marketId": self.market_id, "phase": self.phase}

    def __str__(self) -> str:
        return f"market {self.market_id} of campaign {self.campaign_id}, phase {self.phase}"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of the plan of one market."""

    market: MarketPhase
    chunk: int  # its number, from 1
    first: int  # row of the plan, counted from 1
    last: int  # row of the plan, included
    result_hash: str  # of the result that was planned

    @property
    def id(self) -> str:
        return f"{self.market.prefix}{self.chunk}"

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    def as_json(self) -> dict[str, Any]:
        """The item of a `selections.assign` message."""
        return self.market.as_fields() | as_document(self, "chunk", "first", "last", "result_hash")

    @classmethod
    def parse(cls, raw: object) -> Chunk:
        """Read one raw item; raises PermanentFailure INVALID_BODY naming the field."""
        if not isinstance(raw, Mapping):
            raise PermanentFailure(
                Reason.INVALID_BODY, f"an item should be an object, found {type(raw).__name__}"
            )
        for name in ("campaignId", "marketId"):
            if not isinstance(raw.get(name), str) or not is_selection_id(raw[name]):
                raise PermanentFailure(Reason.INVALID_BODY, f"field {name} is missing or not an id")
        for name in ("phase", "chunk", "first", "last"):
            value = raw.get(name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise PermanentFailure(Reason.INVALID_BODY, f"field {name} should be an integer from 1")
        if raw["last"] < raw["first"]:
            raise PermanentFailure(Reason.INVALID_BODY, "field last is smaller than field first")
        if not isinstance(raw.get("resultHash"), str) or not _HASH.fullmatch(raw["resultHash"]):
            raise PermanentFailure(Reason.INVALID_BODY, "field resultHash should be 64 lowercase hex digits")
        market = MarketPhase(raw["campaignId"], raw["marketId"], raw["phase"])
        return cls(market, raw["chunk"], raw["first"], raw["last"], raw["resultHash"])


def cut(market: MarketPhase, planned: int, size: int, result_hash: str) -> list[Chunk]:
    """The chunks of a plan of `planned` rows, at most `size` rows each."""
    starts = range(1, planned + 1, size)
    return [
        Chunk(market, number, first, min(first + size - 1, planned), result_hash)
        for number, first in enumerate(starts, 1)
    ]


@dataclass(frozen=True, slots=True)
class Planned:
    """One row of a plan. Rank, code and position are 0 and empty in the plan of `-`."""

    ref: str  # the fan's reference
    entry_id: str
    type: NoticeType
    rank: int = 0  # in the order of the draw, from 1
    code: str = ""  # what the winner buys with
    position: int = 0  # of the code in its import


@dataclass(frozen=True, slots=True)
class Notice:
    """One message to one fan, as the outbox keeps it and the mailer gets it: who and what, no code, no mail."""

    market: MarketPhase
    ref: str  # the fan's reference
    entry_id: str
    type: NoticeType
    result_hash: str
    not_before: str
    # When a winner's code expires; None: it does not, or there is none.
    code_expires_at: str | None = None

    @property
    def key(self) -> str:
        """The mailer drops a second message with the same key."""
        return self.market.key(self.ref)

    def as_fields(self) -> dict[str, Any]:
        fields = as_document(self, "ref", "entry_id", "type", "result_hash", "not_before")
        expires = as_document(self, "code_expires_at") if self.code_expires_at else {}
        return self.market.as_fields() | fields | expires

    def as_json(self) -> dict[str, Any]:
        """The item of a `notifications.send` message."""
        return {"key": self.key, **self.as_fields()}

    @classmethod
    def of(
        cls,
        market: MarketPhase,
        planned: Planned,
        result_hash: str,
        not_before: str,
        codes_expire_at: str = "",
    ) -> Notice:
        expires = codes_expire_at if planned.code else ""
        return cls(
            market, planned.ref, planned.entry_id, planned.type, result_hash, not_before, expires or None
        )

    @classmethod
    def stored(cls, document: Mapping[str, Any]) -> Notice:
        """The notice of a row of the outbox."""
        return cls(
            MarketPhase(document["campaignId"], document["marketId"], document["phase"]),
            document["ref"],
            document["entryId"],
            NoticeType(document["type"]),
            document["resultHash"],
            document["notBefore"],
            document.get("codeExpiresAt"),
        )


class StepState(StrEnum):
    """How a step of a draw ended."""

    DONE = "done"
    # An earlier run decided it.
    UNCHANGED = "unchanged"
    # It awaits a confirmation, or what stopped the run.
    AWAITING = "awaiting"
    # It waits for a known time (`dueAt`).
    WAITING = "waiting"
    # It decided nothing.
    PREVIEW = "preview"

    @property
    def is_over(self) -> bool:
        """Whether the next step can begin."""
        return self not in (StepState.AWAITING, StepState.WAITING)


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of a step of a draw."""

    name: str
    state: StepState
    # Numbers and hashes, never a fan's data.
    facts: Mapping[str, Any]
    # Tables and plots by name, as Markdown.
    markdown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PromiseVerdict:
    """`numbers` are flat, by name; `description` is one sentence. Neither holds a fan's data."""

    passed: bool
    description: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


class DrawBusy(Failure):
    """Another run works on this draw, so this one has nothing to do."""

    def __init__(self, campaign_id: str) -> None:
        super().__init__(f"another run works on the draw of {campaign_id}: nothing to do here")
