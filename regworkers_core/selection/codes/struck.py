"""Codes that fans hold although they must not count: of winners who were struck later, and of an annulled draw.

Their issuer has to block them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TextIO

from fairdraw.documents import as_document
from regworkers_core.adapters.files.csv_lines import in_batches, masked
from regworkers_core.adapters.mongo.codes import CodeStatus
from regworkers_core.adapters.mongo.outbox import RowStatus
from regworkers_core.domain.selection import MarketPhase
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.terms import PhaseTerms

_PAGE = 1_000
_HELD = (CodeStatus.ASSIGNED, CodeStatus.REDEEMED)
_NOTIFIED = "told"  # stored name
_COLUMNS = ("code", "marketId", "status", "ref", _NOTIFIED, "blocked")


@dataclass(frozen=True, slots=True)
class StruckCode:
    """A code to block. `notified`: the fan got the message that they won. `blocked`: the issuer refuses the code."""

    code: str
    market_id: str
    phase: int
    ref: str
    status: CodeStatus
    notified: bool
    blocked: bool

    @property
    def to_block(self) -> bool:
        return self.status in _HELD and not self.blocked

    def as_dict(self) -> dict[str, object]:
        """Return the document with the code masked: a code is worth a seat to any reader."""
        return as_document(self, "code", "market_id", "phase", "ref", "status") | {
            "code": masked(self.code),
            _NOTIFIED: self.notified,
            "blocked": self.blocked,
        }


def struck_codes(runtime: Runtime, campaign_id: str) -> list[StruckCode]:
    """Return the codes of refs that a confirmed phase has struck and that hold a code, or got the message that they
    won, by market, phase and ref; of an annulled draw, every code that was given.

    Three queries for each thousand struck refs. Raises TransientFailure.
    """
    record = runtime.draws.get(campaign_id)
    if record is not None and record.annulled:
        return sorted(_given(runtime, campaign_id), key=lambda each: (each.market_id, each.phase, each.ref))
    confirmed = [
        phase for phase in (record.phases if record else {}).values() if "confirmedAt" in phase.fields
    ]
    strikes = PhaseTerms.parse(confirmed[-1].fields["terms"]).strikes if confirmed else ()
    found: list[StruckCode] = []
    for start in range(0, len(strikes), _PAGE):
        refs = [ref for ref, _ in strikes[start : start + _PAGE]]
        won = runtime.selections.of_refs(campaign_id, refs)
        codes = runtime.codes.get([each["code"] for each in won])
        keys = {each["_id"]: each for each in won}
        statuses = runtime.outbox.statuses(list(keys))
        for key, each in keys.items():
            code = codes.get(each["code"])
            notified = statuses.get(key) == RowStatus.SENT
            holds = code is not None and code.status in _HELD and code.ref == each["ref"]
            if code is not None and (holds or notified):
                market = MarketPhase(campaign_id, each["marketId"], each["phase"])
                found.append(
                    StruckCode(
                        code.code,
                        market.market_id,
                        market.phase,
                        each["ref"],
                        code.status,
                        notified,
                        code.blocked,
                    )
                )
    return sorted(found, key=lambda each: (each.market_id, each.phase, each.ref))


def _given(runtime: Runtime, campaign_id: str) -> Iterator[StruckCode]:
    for batch in runtime.codes.of_campaign(campaign_id, _PAGE):
        codes = runtime.codes.get([each["_id"] for each in batch])
        keys = {
            each["_id"]: MarketPhase(campaign_id, each["marketId"], each.get("phase", 1)).key(each["ref"])
            for each in batch
        }
        statuses = runtime.outbox.statuses(list(keys.values()))
        for each in batch:
            code = codes.get(each["_id"])
            if code is not None:
                notified = statuses.get(keys[code.code]) == RowStatus.SENT
                phase = each.get("phase", 1)
                yield StruckCode(
                    code.code, code.market_id, phase, code.ref, code.status, notified, code.blocked
                )


def write_csv(codes: Iterable[StruckCode], file: TextIO) -> None:
    """Write the unmasked codes for the issuer: a header and one line per code."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for each in codes:
        notified, blocked = ("yes" if flag else "no" for flag in (each.notified, each.blocked))
        writer.writerow((each.code, each.market_id, each.status.value, each.ref, notified, blocked))


def mark_blocked(runtime: Runtime, campaign_id: str, *, reason: str, run_id: str) -> int:
    """Record that the issuer refuses all codes that struck refs hold, REDEEMED ones too; return how many are new. They
    keep their status: what was given stays on record. Raises TransientFailure.
    """
    at = iso(runtime.clock())
    return sum(
        runtime.codes.block(campaign_id, page, at=at, reason=reason, run_id=run_id)
        for page in in_batches(
            (each.code for each in struck_codes(runtime, campaign_id) if each.to_block), _PAGE
        )
    )
