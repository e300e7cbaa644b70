"""The `codes` collection: access codes, each with its own position in its market.

A winner is matched to a position, so a position is given once: a unique index on (campaignId, marketId, position)
refuses a second code there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from regworkers_core.adapters.mongo.store import Document, Store, Update, bulk_update, scan
from regworkers_core.domain.reasons import PermanentFailure, Reason, TransientFailure
from regworkers_core.domain.selection import MarketPhase, Planned

# Between our read and our write another writer may take a position; one that does so every time is a defect.
_ROUNDS = 50
_TAKEN = ("ASSIGNED", "REDEEMED")
_IS_VOID = "it is VOID"
_IS_GIVEN = "it is given to another winner"
_PAGE = 10_000


class CodeStatus(StrEnum):
    AVAILABLE = "AVAILABLE"
    ASSIGNED = "ASSIGNED"
    REDEEMED = "REDEEMED"
    VOID = "VOID"


@dataclass(frozen=True, slots=True)
class Code:
    """One code as stored."""

    code: str  # what a winner buys with
    campaign_id: str
    market_id: str
    position: int
    status: CodeStatus
    ref: str = ""  # the winner's, empty while it has none
    entry_id: str = ""  # the winner's, empty while it has none
    import_id: str = ""
    blocked: bool = False  # its issuer refuses it
    passed_on: int = 0  # the phase to which its seat lapsed; 0: it did not


@dataclass(frozen=True, slots=True)
class NewCode:
    code: str
    market_id: str
    salt: str = ""  # its signature under the campaign's code key; empty: made by the plan


class CodePosition(NamedTuple):
    """A code at its place in the order of import."""

    position: int
    code: str


class PlacedCode(NamedTuple):
    code: str
    status: str


class IssuedCode(NamedTuple):
    """A code as its issuer has to know it."""

    code: str
    digest: str  # empty: it was not kept yet
    phase: int  # the one that gave it; 0: none yet


class ExpiredCodes(NamedTuple):
    """The codes of one market and phase that were given, not redeemed, and whose seats did not lapse yet."""

    lapsing: int  # blocked
    unsettled: int  # not blocked


class Codes(Store):
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def get(self, codes: Sequence[str]) -> dict[str, Code]:
        """Those of `codes` that exist, in any campaign."""
        return {each["_id"]: _code(each) for each in self._find({"_id": {"$in": list(codes)}})}

    def add(
        self, campaign_id: str, codes: Sequence[NewCode], *, import_id: str, at: str, highest: dict[str, int]
    ) -> dict[str, Code]:
        """Append new codes, in this order, behind the highest position of their market; returns the stored code of each
        that was **not** added, because another writer was faster.

        `highest` is the highest known position by market (absent: unknown) and is kept up to date. Killed half way,
        a prefix of the codes is stored: no gap.
        """
        refused: dict[str, Code] = {}
        rest = list(codes)
        for _ in range(_ROUNDS):
            for market_id in {new.market_id for new in rest} - highest.keys():
                highest[market_id] = self.highest(campaign_id, market_id)
            placed = _place(campaign_id, rest, import_id, at, highest)
            if self._insert(placed):
                highest.update({document["marketId"]: document["position"] for document in placed})
                return refused
            # A code or a position was taken meanwhile, or this write went through and its answer was lost.
            highest.clear()
            stored = self.get([new.code for new in rest])
            refused.update({code: found for code, found in stored.items() if found.import_id != import_id})
            rest = [new for new in rest if new.code not in stored]
            if not rest:
                return refused
        raise TransientFailure(self._dependency.name, "positions stay contested by other writers")

    def _insert(self, documents: list[Document]) -> bool:
        """In order, up to the first that is refused; False when one was."""
        from pymongo.errors import BulkWriteError

        try:
            self._dependency.call(self._collection.insert_many, documents, ordered=True)
        except BulkWriteError:
            return False
        return True

    def highest(self, campaign_id: str, market_id: str) -> int:
        """The highest position ever given there, 0 when there is none."""
        query = {"campaignId": campaign_id, "marketId": market_id}
        found = self._first(query, {"position": 1}, sort=[("position", -1)])
        return 0 if found is None else int(found["position"])

    def count(self, campaign_id: str) -> dict[str, dict[CodeStatus, int]]:
        """Codes by market and status; a status without codes is absent."""
        counts: dict[str, dict[CodeStatus, int]] = {}
        of_campaign: Document = {"campaignId": campaign_id}
        for market_id in self._dependency.call(self._collection.distinct, "marketId", of_campaign):
            found = self._count_by({**of_campaign, "marketId": market_id}, "status")
            counts[market_id] = {CodeStatus(status): number for status, number in found.items()}
        return counts

    def void(self, campaign_id: str, code: str, *, at: str, reason: str, run_id: str) -> bool:
        """Permanently void an AVAILABLE code; False when it is not AVAILABLE. It keeps its position."""
        guard = {"_id": code, "campaignId": campaign_id, "status": CodeStatus.AVAILABLE.value}
        return self._void(guard, at, reason, run_id)

    def void_given(self, code: Code, *, at: str, reason: str, run_id: str) -> bool:
        """Void a code that was given outside of this system; False when it changed since it was read."""
        guard: Document = {"_id": code.code, "status": code.status.value, "ref": code.ref or None}
        return self._void(guard, at, reason, run_id)

    def _void(self, guard: Document, at: str, reason: str, run_id: str) -> bool:
        fields = {"status": CodeStatus.VOID.value, "voidedAt": at, "voidReason": reason, "voidRunId": run_id}
        return bool(self._update_one(guard, {"$set": fields}).matched_count)

    def block(self, campaign_id: str, codes: Sequence[str], *, at: str, reason: str, run_id: str) -> int:
        """Record that the issuer refuses these codes, which fans hold; returns how many were not recorded before."""
        guard = {
            "_id": {"$in": list(codes)},
            "campaignId": campaign_id,
            "status": {"$in": list(_TAKEN)},
            "blockedAt": {"$exists": False},
        }
        fields = {"blocked": True, "blockedAt": at, "blockedReason": reason, "blockedRunId": run_id}
        return self._update_many(guard, {"$set": fields}).modified_count

    # For their issuer, who names a code by its digest.

    def issued(self, campaign_id: str, market_id: str) -> Iterator[list[IssuedCode]]:
        """The codes of a market that are not VOID, by position, a page at a time."""
        position, full = 0, True
        while full:
            query = _not_void(campaign_id, market_id, position)
            fields = dict.fromkeys(("position", "digest", "phase"), 1)
            found = self._find(query, fields, sort=[("position", 1)], limit=_PAGE)
            full = len(found) == _PAGE
            if found:
                position = found[-1]["position"]
                yield [
                    IssuedCode(each["_id"], each.get("digest", ""), each.get("phase", 0)) for each in found
                ]

    def keep_digests(self, campaign_id: str, digests: Mapping[str, str]) -> None:
        """Keep the digest of each code; a code has only one."""
        self._bulk(
            [
                bulk_update({"_id": code, "campaignId": campaign_id}, {"$set": {"digest": digest}})
                for code, digest in digests.items()
            ]
        )

    def by_digest(self, campaign_id: str, digests: Sequence[str]) -> dict[str, Code]:
        """The codes of a campaign by these digests; one that is not known is absent."""
        found = self._find({"digest": {"$in": list(digests)}, "campaignId": campaign_id}) if digests else []
        return {each["digest"]: _code(each) for each in found}

    def redeem(self, campaign_id: str, code: str, *, at: str, run_id: str) -> bool:
        """Record that a fan has used an ASSIGNED code at `at`; False when it is not ASSIGNED, or its seat passed on."""
        guard = {"_id": code, "campaignId": campaign_id, "status": "ASSIGNED", "passedOn": {"$exists": False}}
        fields = {"status": "REDEEMED", "redeemedAt": at, "redeemedRunId": run_id}
        return bool(self._update_one(guard, {"$set": fields}).matched_count)

    # For seats that pass on.

    def count_expired(self, market: MarketPhase) -> ExpiredCodes:
        """How many seats of the market's winners in this phase could lapse once their codes have expired."""
        blocked, open_ = (
            self._count({**_unclaimed(market), "blockedAt": {"$exists": flag}}) for flag in (True, False)
        )
        return ExpiredCodes(blocked, open_)

    def pass_on(self, market: MarketPhase, phase: int) -> int:
        """Let the seats of this market's winners lapse to `phase`, each whose code is blocked and not redeemed; its
        redemption is refused from now on. Returns how many.
        """
        guard = {**_unclaimed(market), "blockedAt": {"$exists": True}}
        return self._update_many(guard, {"$set": {"passedOn": phase}}).modified_count

    def passed_on(self, campaign_id: str) -> list[str]:
        """The refs of all whose seats lapsed by their codes."""
        found = self._find({"campaignId": campaign_id, "passedOn": {"$exists": True}}, {"ref": 1})
        return sorted(str(each["ref"]) for each in found)

    # For the assignment of codes to winners.

    def salts(self, codes: Sequence[str]) -> dict[str, str]:
        """The salt of each that has one."""
        found = self._find({"_id": {"$in": list(codes)}}, {"salt": 1})
        return {each["_id"]: each["salt"] for each in found if each.get("salt")}

    def behind(self, campaign_id: str, market_id: str, position: int, limit: int) -> Iterator[CodePosition]:
        """Up to `limit` codes behind a position, by position, without VOID ones; a page at a time."""
        while limit > 0:
            query = _not_void(campaign_id, market_id, position)
            page = min(limit, _PAGE)
            found = self._find(query, {"position": 1}, sort=[("position", 1)], limit=page)
            for document in found:
                position = document["position"]
                yield CodePosition(position, document["_id"])
            if len(found) < page:
                return
            limit -= page

    def count_behind(self, campaign_id: str, market_id: str, position: int, limit: int) -> int:
        """How many there are, at most `limit`."""
        if not limit:
            return 0
        return self._count(_not_void(campaign_id, market_id, position), limit)

    def first_given(self, campaign_id: str, market_id: str, position: int, limit: int) -> int | None:
        """The first position among the `limit` codes behind `position` whose code is given already. None: a plan can
        use them all.
        """
        query = {**_not_void(campaign_id, market_id, position), "status": {"$in": list(_TAKEN)}}
        first = self._first(query, {"position": 1}, sort=[("position", 1)])
        if first is None or not limit:
            return None
        before = _not_void(campaign_id, market_id, position)
        before["position"] = {"$gt": position, "$lt": first["position"]}
        ahead = self._count(before, limit)
        return int(first["position"]) if ahead < limit else None

    def at(self, campaign_id: str, market_id: str, positions: Sequence[int]) -> dict[int, PlacedCode]:
        """The codes at these positions, by position; a missing one is absent."""
        query = {"campaignId": campaign_id, "marketId": market_id, "position": {"$in": list(positions)}}
        found = self._find(query, {"position": 1, "status": 1})
        return {each["position"]: PlacedCode(each["_id"], str(each.get("status"))) for each in found}

    def claim(self, market: MarketPhase, winners: Sequence[Planned], *, at: str, run_id: str) -> int:
        """Give every winner the planned code: AVAILABLE becomes ASSIGNED. Returns how many were given now; the others
        had theirs before.

        Raises PermanentFailure CODE_CONFLICT when a code is neither available nor the winner's.
        """
        given = self._bulk([_claim(market, winner, at, run_id) for winner in winners])
        if given < len(winners):
            # Repeats, other processors, or a conflict: the bulk does not say which.
            self._require_theirs(market, winners)
        return given

    def _require_theirs(self, market: MarketPhase, winners: Sequence[Planned]) -> None:
        found = self._find({"_id": {"$in": [winner.code for winner in winners]}})
        stored = {document["_id"]: document for document in found}
        conflicts, free = [], 0
        for winner in winners:
            code = stored.get(winner.code)
            if code is not None and code.get("status") == "AVAILABLE" and _belongs(code, market):
                free += 1
            elif code is None or not _is_theirs(code, market, winner):
                conflicts.append((winner.position, _what(code, market)))
        if conflicts:
            position, what = min(conflicts)
            raise PermanentFailure(
                Reason.CODE_CONFLICT,
                f"{len(conflicts)} of {len(winners)} planned codes of {market} cannot be given, "
                f"first position {position}: {what}; {_help(market, what)}",
            )
        if free:
            raise TransientFailure(self._dependency.name, "codes became available while they were claimed")

    def count_held(self, campaign_id: str) -> int:
        """How many codes fans hold that their issuer is not known to refuse."""
        query = {"campaignId": campaign_id, "status": {"$in": list(_TAKEN)}, "blockedAt": {"$exists": False}}
        return self._count(query)

    def of_campaign(self, campaign_id: str, size: int = 10_000) -> Iterator[list[Document]]:
        """Market, position, ref and phase of every code that was given, unordered, `size` at a time."""
        query = {"campaignId": campaign_id, "status": {"$in": list(_TAKEN)}}
        fields = ("marketId", "position", "ref", "phase")
        return scan(self._collection, self._dependency, query, fields, size=size, ordered=False)


def _place(
    campaign_id: str, codes: Sequence[NewCode], import_id: str, at: str, highest: Mapping[str, int]
) -> list[Document]:
    """The documents; positions continue behind the highest one of each market."""
    counters = dict(highest)
    documents: list[Document] = []
    for new in codes:
        counters[new.market_id] += 1
        documents.append(
            {
                "_id": new.code,
                "campaignId": campaign_id,
                "marketId": new.market_id,
                "position": counters[new.market_id],
                "status": CodeStatus.AVAILABLE.value,
                **({"salt": new.salt} if new.salt else {}),
                "importId": import_id,
                "importedAt": at,
            }
        )
    return documents


def _code(document: Mapping[str, Any]) -> Code:
    return Code(
        code=document["_id"],
        campaign_id=document["campaignId"],
        market_id=document["marketId"],
        position=document["position"],
        status=CodeStatus(document["status"]),
        ref=document.get("ref") or "",
        entry_id=document.get("entryId") or "",
        import_id=document.get("importId") or "",
        # A server on SQLite returns a flag that was set by an update as 0 or 1.
        blocked=bool(document.get("blocked")),
        passed_on=document.get("passedOn", 0),
    )


def _not_void(campaign_id: str, market_id: str, position: int) -> Document:
    return {
        "campaignId": campaign_id,
        "marketId": market_id,
        "position": {"$gt": position},
        "status": {"$ne": "VOID"},
    }


def _unclaimed(market: MarketPhase) -> Document:
    return {**market.as_fields(), "status": "ASSIGNED", "passedOn": {"$exists": False}}


def _claim(market: MarketPhase, winner: Planned, at: str, run_id: str) -> Update:
    free = {
        "_id": winner.code,
        "status": "AVAILABLE",
        "campaignId": market.campaign_id,
        "marketId": market.market_id,
    }
    given = {
        "status": "ASSIGNED",
        "ref": winner.ref,
        "entryId": winner.entry_id,
        "phase": market.phase,
        "assignedAt": at,
        "runId": run_id,
    }
    return bulk_update(free, {"$set": given})


def _belongs(code: Document, market: MarketPhase) -> bool:
    return (code.get("campaignId"), code.get("marketId")) == (market.campaign_id, market.market_id)


def _is_theirs(code: Document, market: MarketPhase, winner: Planned) -> bool:
    return code.get("status") in _TAKEN and _belongs(code, market) and code.get("ref") == winner.ref


def _help(market: MarketPhase, what: str) -> str:
    command = f"`regworkers draw replan-code {market.campaign_id} {market.market_id}`"
    if what == _IS_GIVEN:
        return f"find out who has it; {command} then makes it void and gives its winner the next position"
    if what == _IS_VOID:
        return f"{command} gives the winners of void codes the next positions"
    return "correct the code, then retry the market"


def _what(code: Document | None, market: MarketPhase) -> str:
    if code is None:
        return "it is gone"
    if not _belongs(code, market):
        return "it belongs to another market"
    return _IS_GIVEN if code.get("status") in _TAKEN else f"it is {code.get('status')}"
