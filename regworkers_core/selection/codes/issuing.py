"""What the issuer of the codes is given: each code with its digest, by which it names the code, and when it expires.

A digest is that of the code and its salt, and the salt is the signature of the code under the campaign's code key. So
who sees digests, in the public log or in a message, learns no code.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cached_property
from io import TextIOWrapper
from pathlib import Path
from typing import NamedTuple

from fairdraw.maths.codes import digest_of, normal, salt_of
from regworkers_core.adapters.files import open_private
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.selection import MarketPhase, issuer_key
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.keys import ensure_keys

_COLUMNS = ("code", "digest", "expiresAt")


class Salts:
    """The salts of a campaign's codes: as they were stored at the import, or made now. A code has only one."""

    def __init__(self, runtime: Runtime, campaign_id: str) -> None:
        self._runtime = runtime
        self._campaign = runtime.campaigns.require_id(campaign_id)

    def of(self, codes: Sequence[str]) -> dict[str, SaltedCode]:
        """Return each code with its salt, by code as stored. Raises UsageError for keys that cannot be read back,
        TransientFailure.
        """
        stored = self._runtime.codes.salts(codes)
        return {code: self._salted(code, stored.get(code)) for code in codes}

    def _salted(self, code: str, stored: str | None) -> SaltedCode:
        signed = normal(code, caseless=self._campaign.codes.caseless)
        if stored is None or signed != code:
            stored = salt_of(self._key, self._campaign.campaign_id, signed)
        return SaltedCode(signed, stored)

    @cached_property
    def _key(self) -> bytes:
        return ensure_keys(self._runtime, self._campaign).code


class SaltedCode(NamedTuple):
    code: str  # as it was signed
    salt: str

    @property
    def digest(self) -> str:
        return digest_of(self.salt, self.code)


def put_for_issuer(runtime: Runtime, campaign: Campaign, path: Path) -> int:
    """Write the file to `path`, then put it where the issuer may fetch it, in place of the one before. Returns the
    number of codes. Raises as `write_for_issuer`.
    """
    # Before the codes are read: those that are given meanwhile make the next file due.
    record = runtime.draws.light(campaign.campaign_id)
    written = write_for_issuer(runtime, campaign, path)
    runtime.objects.put_file(issuer_key(campaign.campaign_id), path)
    if record is not None:
        runtime.draw_markets.issued(campaign.campaign_id, record.given, iso(runtime.clock()))
    return written


def write_for_issuer(runtime: Runtime, campaign: Campaign, path: Path) -> int:
    """Write a private CSV file with a line for each code that is not void, by market and position: code, digest, and
    when it expires (ISO-8601; empty: it was not given yet, or never does). Keep the digests with the codes, so that
    they are known once the issuer names them. Returns the number of codes; constant memory.

    Raises as `Salts.of`, OSError.
    """
    record = runtime.draws.get(campaign.campaign_id)
    salts, written = Salts(runtime, campaign.campaign_id), 0
    with TextIOWrapper(open_private(path), encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(_COLUMNS)
        for market_id in campaign.market_ids:
            for page in runtime.codes.issued(campaign.campaign_id, market_id):
                unknown = [each.code for each in page if not each.digest]
                made = {code: each.digest for code, each in salts.of(unknown).items()} if unknown else {}
                runtime.codes.keep_digests(campaign.campaign_id, made)
                for each in page:
                    given = MarketPhase(campaign.campaign_id, market_id, each.phase)
                    expires = record.codes_expire_at(given) if record and each.phase else ""
                    lines.writerow((each.code, each.digest or made[each.code], expires))
                written += len(page)
    return written
