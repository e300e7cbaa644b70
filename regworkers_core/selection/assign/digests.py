"""The planned codes in the public log: as digests, before any of them is given.

`codes-<k>.txt` beside a phase's artefacts has a line `market|position|digest` for each code that was planned in the
phase so far. A digest is that of the code and its salt, and the salt is an HMAC of the code under a secret of the
campaign. So equal codes have equal digests wherever they are planned, and the salt that a winner is given opens no
other code.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets as randomness
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fairdraw.documents import as_document
from fairdraw.log.leaves import Kind
from fairdraw.maths.beside import codes_name
from fairdraw.maths.files import sha256_hex
from regworkers_core.adapters.mongo.draws import PhaseRecord
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import NON_WINNERS, MarketPhase, public_key
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.plan import Plan, Plans
from regworkers_core.selection.public.public_log import log_leaves

_SECRET_BYTES = 32
_DESCRIPTION = "Salts of the planned codes of a campaign in the public log: kept secret, changed never."
_HEX = re.compile(r"[0-9a-f]{64}")
_ROWS = 10_000
# Replacements of void codes by market, as a market's record has them: `{row, from, to, ...}`.
Moves = Mapping[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Salts:
    """The salts of a campaign's codes."""

    secret: bytes

    @classmethod
    def of(cls, runtime: Runtime, campaign_id: str) -> Salts:
        """Raises UsageError for a secret that was changed into something else, TransientFailure."""
        name, made = f"code-salt/{campaign_id}", randomness.token_bytes(_SECRET_BYTES).hex()
        stored = runtime.secrets.create(name, made, description=_DESCRIPTION)
        if not _HEX.fullmatch(stored):
            raise UsageError(
                f"secret {runtime.names.prefix}{name} should be 64 lowercase hex digits: restore its earlier version"
            )
        return cls(bytes.fromhex(stored))

    def salt(self, code: str) -> str:
        return hmac.new(self.secret, f"vfsalt1|{code}".encode(), hashlib.sha256).hexdigest()

    def digest(self, code: str) -> str:
        return digest_of(self.salt(code), code)


def digest_of(salt: str, code: str) -> str:
    """What a winner computes from the code and its salt."""
    return sha256_hex(f"vfcode1|{salt}|{code}".encode())


def log_codes(
    runtime: Runtime,
    campaign_id: str,
    phase: PhaseRecord,
    plans: Mapping[str, Plan],
    moves: Moves | None = None,
) -> None:
    """Publish the codes of the phase with those of the new `plans` and `moves`, and put them into the log, before these
    become valid. Idempotent.

    Raises NotWitnessed while too few witnesses vouch for it, and as `Plans.rows`.
    """
    salts = Salts.of(runtime, campaign_id)
    lines: list[str] = []
    for market_id, entry in sorted(phase.markets.items()):
        market = MarketPhase(campaign_id, market_id, phase.phase)
        plan = plans.get(market_id) or (Plan.of(market, entry) if entry.get("plan") else None)
        if market_id == NON_WINNERS or plan is None:
            continue
        replanned = [*(entry.get("replanned") or ()), *(moves or {}).get(market_id, ())]
        codes = {**dict(_rows(Plans(runtime.objects), plan)), **_moved(runtime, market, replanned)}
        lines += [f"{market_id}|{at}|{salts.digest(code)}\n" for at, code in sorted(codes.items())]
    if not lines:
        return
    data = "".join(lines).encode("ascii")
    number = 1
    while runtime.objects.put_once(public_key(campaign_id, phase.phase, codes_name(number)), data) != data:
        number += 1
    log_leaves(runtime, campaign_id, phase.phase, Kind.CODES, sha256_hex(data))


def _rows(plans: Plans, plan: Plan) -> Iterator[tuple[int, str]]:
    for first in range(1, plan.rows + 1, _ROWS):
        for row in plans.rows(plan, first, min(first + _ROWS - 1, plan.rows)):
            yield row.position, row.code


def _moved(runtime: Runtime, market: MarketPhase, moves: list[dict[str, Any]]) -> dict[int, str]:
    wanted = [int(each["to"]) for each in moves]
    stored = runtime.codes.at(market.campaign_id, market.market_id, wanted) if wanted else {}
    return {position: stored[position].code for position in wanted if position in stored}


@dataclass(frozen=True, slots=True)
class CodeProof:
    """What winners need to find their code among the published digests. `salt` is secret as the code is."""

    campaign_id: str
    phase: int
    market_id: str
    position: int
    salt: str
    digest: str

    def as_dict(self) -> dict[str, Any]:
        return as_document(self)


def code_proofs(runtime: Runtime, campaign_id: str, ref: str) -> list[CodeProof]:
    """The proofs of the codes that a winner was given; empty before that. Raises UsageError, TransientFailure."""
    salts, found = Salts.of(runtime, campaign_id), []
    for won in runtime.selections.of_entry(campaign_id, ref):
        market_id, position = str(won["marketId"]), int(won["position"])
        code = runtime.codes.at(campaign_id, market_id, [position])[position].code
        found.append(
            CodeProof(
                campaign_id, int(won["phase"]), market_id, position, salts.salt(code), salts.digest(code)
            )
        )
    return found
