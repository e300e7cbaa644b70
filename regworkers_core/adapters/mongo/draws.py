"""The `draws` collection: one document per campaign with what its draw has decided so far.

A draw's own writes (`Draws`) carry the fencing token of its lease and are refused once a newer token wrote; what
must be decided once (the pool, the manifest, the seed, the result) is written only if the field is absent. The
assignment of codes does not hold the lease: its writes are `selections.DrawMarkets`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, NamedTuple, TypeVar, cast

from fairdraw.terms import ALGORITHM
from regworkers_core.adapters.mongo.store import Document, Store
from regworkers_core.domain.reasons import RequestError
from regworkers_core.domain.selection import LEAD_SECONDS, QUICKNET, Chain, MarketPhase, pipeline_key
from regworkers_core.domain.timestamps import seconds

T = TypeVar("T")


class PhaseStatus(StrEnum):
    """Progress of a phase, forward only. OPENED: its terms are known, nothing is decided."""

    OPENED = "OPENED"
    FROZEN = "FROZEN"
    COMMITTED = "COMMITTED"
    SEEDED = "SEEDED"
    RANKED = "RANKED"
    DRAWN = "DRAWN"
    PUBLISHED = "PUBLISHED"
    COMPLETED = "COMPLETED"

    @property
    def step(self) -> int:
        return list(PhaseStatus).index(self)


class MarketStatus(StrEnum):
    """BLOCKED: too few codes, none given yet. ASSIGNING: its chunks are queued or in progress."""

    PENDING = "PENDING"
    BLOCKED = "BLOCKED"
    ASSIGNING = "ASSIGNING"
    COMPLETED = "COMPLETED"


class Fenced(Exception):
    """A newer token has written: this run lost its lease and must not decide anything."""


class _Stored(Generic[T]):
    """A field of a phase; `default` while it is absent or empty."""

    def __init__(self, name: str, default: T) -> None:
        self._name, self._default = name, default

    def __get__(self, phase: PhaseRecord, _owner: type[PhaseRecord]) -> T:
        return cast(T, phase.fields.get(self._name) or self._default)


@dataclass(frozen=True, slots=True)
class PhaseRecord:
    """One phase of a draw. `fields` is the subdocument as stored; what is read most has a name."""

    phase: int
    fields: Mapping[str, Any]

    # `{prefix, at, ...}`: where the judged entries are stored, and their numbers; final once frozen.
    eligibility = _Stored[Mapping[str, Any]]("eligibility", {})
    # `{prefix, entries, eligible, excluded {reason: n}, droppedPreferences, root, count, ...}`.
    freeze = _Stored[Mapping[str, Any]]("freeze", {})
    manifest_hash = _Stored("manifestHash", "")
    # The time of the manifest's leaf in the public log; empty before it is published.
    logged_at = _Stored("loggedAt", "")
    # The manifests that this one replaced, in order: `{manifest, committedAt, publishedAt, replacedAt}`; `manifest` is
    # text, `publishedAt` None if it was never published. `replaced-<k>.json` counts them from 1.
    replaced = _Stored[Sequence[Mapping[str, Any]]]("replaced", ())
    # Replaced manifests whose round was signed by then, so that they have a result: `{k, round, manifestHash,
    # resultHash, differ}`; `differ` counts the entries with another outcome. Set by `allocate`.
    recommitted = _Stored[Sequence[Mapping[str, Any]]]("recommitted", ())
    # `{chain, lead}` of phase 1 with another chain than quicknet: the text of `chain.json`, and seconds.
    beacon = _Stored[Mapping[str, Any]]("beacon", {})
    # `{key, sha256}` of phase 1: the file with the class of each registration; empty: none are logged.
    registrations = _Stored[Mapping[str, str]]("registrations", {})
    # Registrations that the freeze of phase 1 has withdrawn because no entry had them any more.
    lost_registrations = _Stored("lostRegistrations", 0)
    # The beacon's verified signatures that the draw has, by round.
    signatures = _Stored[Mapping[str, str]]("signatures", {})
    # SHA-256 in hex of every file that a later step reads, by file name.
    hashes = _Stored[Mapping[str, str]]("hashes", {})
    # `{at, step, file, expected, found, text}` while an input is not what the draw wrote.
    stopped = _Stored[Mapping[str, Any]]("stopped", {})
    result_hash = _Stored("resultHash", "")
    # `{at, runId, findings [{name, detail, acceptable}]}` of the last check of the gate.
    gate = _Stored[Mapping[str, Any]]("gate", {})
    # `{at, finding, reason}` of each finding that an operator accepted, in that order.
    accepted = _Stored[Sequence[Mapping[str, str]]]("accepted", ())
    outcomes = _Stored[Mapping[str, int]]("outcomes", {})
    # `{at, passed}` of the last check of its codes and messages after it completed; empty: none was made.
    judged = _Stored[Mapping[str, Any]]("judged", {})
    # The number of the round of seats that pass on, from 1; 0: it is none.
    round = _Stored("round", 0)
    # Each market by its id, with `-` for the messages to entries that did not win; empty before the publication.
    markets = _Stored[Mapping[str, Mapping[str, Any]]]("markets", {})

    @property
    def status(self) -> PhaseStatus:
        return PhaseStatus(self.fields["status"])

    def reached(self, status: PhaseStatus) -> bool:
        return self.status.step >= status.step

    @property
    def as_of(self) -> str:
        return str(self.fields["asOf"])

    @property
    def is_frozen(self) -> bool:
        """Whether `freeze` is final."""
        return bool(self.freeze)

    @property
    def manifest(self) -> bytes:
        """Exactly the bytes that were hashed; empty before the commit."""
        return str(self.fields.get("manifest") or "").encode("ascii")

    @property
    def published_at(self) -> str | None:
        """When the store confirmed `manifest.json`; None before. Codes and messages went out at `releasedAt`."""
        return self.fields.get("publishedAt")

    @property
    def notice(self) -> bytes:
        """Exactly the bytes of `notice.json`; empty before the manifest is published."""
        return str(self.fields.get("notice") or "").encode()

    @property
    def chain(self) -> Chain:
        """The chain that seeds the draw; ask it of phase 1."""
        return Chain.parse(str(self.beacon["chain"]).encode()) if self.beacon else QUICKNET

    @property
    def lead(self) -> int:
        """The seconds that must be between the publication of the manifest and its round."""
        return int(self.beacon["lead"]) if self.beacon else LEAD_SECONDS

    @property
    def _round(self) -> int | None:
        """The beacon round that the manifest of phase 1 names."""
        return None if self.phase > 1 else (self.fields.get("seedSource") or {}).get("round")

    @property
    def round_at(self) -> float | None:
        """When the round that the manifest of phase 1 names is signed, in epoch seconds; None without one."""
        return None if self._round is None else float(self.chain.due(self._round))

    @property
    def published_late(self) -> bool:
        """Whether the manifest became public less than the lead before its beacon round, or is not public: it may
        have been chosen to fit that round.
        """
        if self.round_at is None:
            return False
        published = seconds(self.published_at or "")
        return published is None or published > self.round_at - self.lead

    @property
    def awaited_round(self) -> int | None:
        """The beacon round that the draw waits for; None when it waits for none."""
        return self._round if self.manifest_hash and not self.fields.get("seedFile") else None

    @property
    def round_due(self) -> float | None:
        """When the awaited round is signed, in epoch seconds."""
        return None if self.awaited_round is None else self.round_at

    @property
    def confirmed(self) -> bool:
        """Whether the publication was confirmed, by an operator or by the settings."""
        return "confirmedAt" in self.fields

    @property
    def strikes(self) -> tuple[tuple[str, str], ...]:
        """Pairs of ref and reason, by ref; those of earlier phases, too."""
        return tuple((ref, reason) for ref, reason in self.fields["terms"]["strikes"])


@dataclass(frozen=True, slots=True)
class DrawRecord:
    """The draw of one campaign with its phases in order."""

    campaign_id: str
    draw_id: str
    token: int
    phases: Mapping[int, PhaseRecord]
    notifications: Mapping[str, Any]  # whether its messages are paused, and why
    # `{at, doneAt?}` by kind of data whose retention period has passed.
    expired: Mapping[str, Mapping[str, Any]]
    # `{annulledAt, phase, manifestHash, reason, by}` of an annulled draw.
    annulled: Mapping[str, Any] | None = None
    # `{completeTo, statedAt}`: the watermark of the issuer of the codes, and when it came.
    redemptions: Mapping[str, str] = field(default_factory=dict)
    # `{given, at}`: what `given` was when the issuer's file was put where the issuer may fetch it, and when that was.
    issued: Mapping[str, Any] = field(default_factory=dict)

    @property
    def latest(self) -> PhaseRecord:
        return self.phases[max(self.phases)]

    @property
    def unconfirmed(self) -> PhaseRecord | None:
        """The later phase that is drawn and not confirmed; messages whose outcome it changes wait for it."""
        latest = self.latest if self.phases and not self.annulled else None
        if latest is None or latest.phase == 1 or latest.confirmed or not latest.reached(PhaseStatus.DRAWN):
            return None
        return latest

    @property
    def public_phases(self) -> list[int]:
        """The phases whose result is for fans: those that were confirmed; once annulled, all that were drawn. What was
        drawn and not confirmed may yet be found wrong.
        """
        return [
            number
            for number, phase in self.phases.items()
            if phase.result_hash and (phase.confirmed or self.annulled)
        ]

    @property
    def not_confirmed(self) -> list[int]:
        """The phases that have a result which is not for fans yet."""
        public = self.public_phases
        return [n for n, phase in self.phases.items() if phase.result_hash and n not in public]

    @property
    def is_kept(self) -> bool:
        """Whether all data that its promises are checked with is there: no retention period of it has passed."""
        return not self.expired.keys() - {"claims"}

    @property
    def unjudged(self) -> list[PhaseRecord]:
        """The phases that completed and were not checked since, and still can be."""
        if self.is_over or not self.is_kept:
            return []
        return [
            each for each in self.phases.values() if each.reached(PhaseStatus.COMPLETED) and not each.judged
        ]

    def frozen_key(self, name: str) -> str:
        """The key of a file of the freeze in the object store."""
        return pipeline_key(self.campaign_id, 1, f"{self.phases[1].freeze['prefix']}/{name}")

    def market_phases(self, *, before: int | None = None) -> list[MarketPhase]:
        """All markets with messages, or those of phases before `before`."""
        return [
            MarketPhase(self.campaign_id, market_id, number)
            for number, phase in self.phases.items()
            if before is None or number < before
            for market_id in phase.markets
        ]

    def highest_planned(self, market_id: str, *, before: int | None = None) -> int:
        """The highest position that was planned in the market over all phases, or over those before phase `before`,
        replacements of void codes included. No position is ever planned again.
        """
        highest = 0
        for number, phase in self.phases.items():
            entry = phase.markets.get(market_id, {})
            if entry.get("plan") and (before is None or number < before):
                again = [int(each["to"]) for each in entry.get("replanned") or ()]
                highest = max([highest, int(entry["plan"]["lastPosition"]), *again])
        return highest

    @property
    def complete_to(self) -> str:
        """Up to when the issuer says that it stated all redemptions (the watermark); empty: it said nothing yet."""
        return str(self.redemptions.get("completeTo", ""))

    def codes_expire_at(self, market: MarketPhase) -> str:
        """When the codes expire that this market gave in this phase; empty: never, or it gave none."""
        phase = self.phases.get(market.phase)
        return str((phase.markets if phase else {}).get(market.market_id, {}).get("codesExpireAt", ""))

    @property
    def given(self) -> int:
        """How often codes that expire were given: by each market in each phase, and in place of each void code."""
        return sum(
            1 + len(entry.get("replanned") or ())
            for phase in self.phases.values()
            for entry in phase.markets.values()
            if entry.get("codesExpireAt") and entry["status"] == MarketStatus.COMPLETED
        )

    @property
    def issuer_lacks_codes(self) -> bool:
        """Whether codes were given since the issuer's file was made."""
        return self.given > int(self.issued.get("given", 0))

    @property
    def is_former(self) -> bool:
        """Whether it was frozen under rules that are gone: its files cannot be read."""
        first = self.phases.get(1)
        if first is None or not first.reached(PhaseStatus.FROZEN):
            return False
        return bool(first.fields.get("terms", {}).get("algorithm") != ALGORITHM)

    @property
    def former_rules(self) -> str:
        """Why nothing can follow, for a draw that is former and was not annulled; else empty."""
        if not self.is_former or self.annulled:
            return ""
        return (
            f"the draw of {self.campaign_id} was frozen under the rules vf1, which are gone:"
            f" `regworkers draw annul {self.campaign_id}`, or the job `annul_draw`, is all that can follow"
        )

    @property
    def is_over(self) -> bool:
        """Whether nothing of it goes on: it was annulled, or its rules are gone."""
        return bool(self.annulled or self.former_rules)

    def require_counts(self) -> None:
        """Raises RequestError for a draw that was annulled, or that follows former rules."""
        if former := self.former_rules:
            raise RequestError(former)
        if self.annulled:
            raise RequestError(
                f"the draw of {self.campaign_id} was annulled at {self.annulled['annulledAt']}"
                f" ({self.annulled['reason']}): nothing follows it, and this campaign is never drawn again"
            )


class PhaseOfDraw(NamedTuple):
    record: DrawRecord
    phase: PhaseRecord


# Prefix of the lease's owner while messages are sent under it and no step works on the draw.
SENDER = "sender-"


def works_on_draw(owner: str) -> bool:
    """Whether this owner of a draw's lease (empty: free) works on the draw."""
    return bool(owner) and not owner.startswith(SENDER)


def lease_name(campaign_id: str) -> str:
    """The lease of a campaign's draw in `worker-leases`."""
    return f"draw-{campaign_id}"


class Draws(Store):
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def get(self, campaign_id: str) -> DrawRecord | None:
        """The draw of this campaign; None before it begins."""
        found = self._first({"_id": campaign_id})
        return None if found is None else _record(found)

    def all(self) -> list[DrawRecord]:
        """Every draw (one per campaign, so there are few), without large fields that only its own steps read:
        manifest, strikes, seed, freeze, and the tables of report and judgement.
        """
        # A pipeline, because `find` projects nested fields on some servers only.
        return [_record(each) for each in self._aggregate([{"$project": _LIGHT}])]

    def light(self, campaign_id: str) -> DrawRecord | None:
        """What `all` gives, for one campaign."""
        found = self._aggregate([{"$match": {"_id": campaign_id}}, {"$project": _LIGHT}])
        return _record(found[0]) if found else None

    def open(self, campaign_id: str, phase: int, fields: Mapping[str, Any], *, token: int) -> None:
        """Begin a phase with its terms; does nothing if it exists. Raises Fenced."""
        from pymongo.errors import DuplicateKeyError

        opened = {"phase": phase, "status": PhaseStatus.OPENED.value, **fields}
        if phase == 1:
            first = {"_id": campaign_id, "campaignId": campaign_id, "drawId": campaign_id, "token": token}
            # It exists when an earlier run began it, or this one whose answer was lost.
            with suppress(DuplicateKeyError):
                self._dependency.call(self._collection.insert_one, {**first, "phases": {"1": opened}})
        self.decide(campaign_id, phase, {}, token=token, whole=opened)

    def annul(self, campaign_id: str, fields: Mapping[str, Any], *, token: int) -> bool:
        """Decide that the draw does not count. False when that was decided before. Raises Fenced."""
        guard = {"annulled": {"$exists": False}}
        return self._set(campaign_id, guard, {"annulled": dict(fields)}, token=token)

    def decide(
        self,
        campaign_id: str,
        phase: int,
        fields: Mapping[str, Any],
        *,
        token: int,
        once: str = "",
        unset: Sequence[str] = (),
        whole: Mapping[str, Any] | None = None,
    ) -> bool:
        """Set fields of a phase and remove those in `unset`; with `once`, only where that field is absent; `whole`
        creates the phase where it is absent. False when it was decided already: read it and use that. Raises Fenced.
        """
        path = f"phases.{phase}"
        guard: Document = {}
        values: Document = {f"{path}.{name}": value for name, value in fields.items()}
        if whole is not None:
            guard[path] = {"$exists": False}
            values = {path: dict(whole)}
        elif once:
            guard[f"{path}.{once}"] = {"$exists": False}
        taken = [f"{path}.{name}" for name in unset]
        return self._set(campaign_id, guard, values, token=token, unset=taken)

    def expire(self, campaign_id: str, kind: str, fields: Mapping[str, Any], *, token: int) -> None:
        """Record that the retention period of one kind of the campaign's data has passed. Raises Fenced."""
        values = {f"expired.{kind}.{name}": value for name, value in fields.items()}
        self._set(campaign_id, {}, values, token=token)

    def _set(
        self, campaign_id: str, guard: Document, values: Document, *, token: int, unset: Sequence[str] = ()
    ) -> bool:
        """False where `guard` does not hold. Raises Fenced."""
        query = {"_id": campaign_id, "$nor": [{"token": {"$gt": token}}], **guard}
        update: Document = {"$set": {**values, "token": token}}
        if unset:
            update["$unset"] = dict.fromkeys(unset, "")
        answer = self._update_one(query, update)
        if answer.matched_count:
            return True
        self._refuse_older(campaign_id, token)
        return False

    def _refuse_older(self, campaign_id: str, token: int) -> None:
        stored = self._first({"_id": campaign_id}, {"token": 1})
        if stored is None or stored["token"] > token:
            raise Fenced(f"the draw of {campaign_id} went on in another run")


# Listed by phase, because no projection means "of every phase"; the embedded server takes a hundred names. Later phases
# are read whole.
_LIGHT_PHASES = 10
_HEAVY = (
    "manifest",
    "replaced",
    "hashes",
    "terms.strikes",
    "seedFile",
    "summary",
    "freeze",
    "eligibility",
    "report.findings",
    "report.warnings",
    "report.funnel",
)
_LIGHT = {f"phases.{phase}.{name}": 0 for phase in range(1, _LIGHT_PHASES + 1) for name in _HEAVY}


def _record(document: Mapping[str, Any]) -> DrawRecord:
    phases = {int(number): PhaseRecord(int(number), fields) for number, fields in document["phases"].items()}
    return DrawRecord(
        campaign_id=document["_id"],
        draw_id=document["drawId"],
        token=document["token"],
        phases=dict(sorted(phases.items())),
        notifications=document.get("notifications") or {},
        expired=document.get("expired") or {},
        annulled=document.get("annulled"),
        redemptions=document.get("redemptions") or {},
        issued=document.get("issued") or {},
    )
