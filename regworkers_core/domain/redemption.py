"""What the issuer of the codes states: a code was redeemed, a code is blocked, all up to a time was stated.

It names a code by its digest, and signs each message with a key that the campaign names. Times order nothing: an item
may come late, twice, or before another one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fairdraw.terms import seconds
from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.messages import MessageType
from regworkers_core.domain.reasons import PermanentFailure, Reason

# The attribute of a message with its signature: `<key id>:<signature in hex>`.
ISSUER = "issuer"
_LABEL = b"vfissuer1|"
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
# The field with the time of an item.
_TIMES = {
    MessageType.REDEEMED: "redeemedAt",
    MessageType.BLOCKED: "blockedAt",
    MessageType.COMPLETE: "completeTo",
}


def signed_text(body: bytes) -> bytes:
    """What the issuer signs of a message."""
    return _LABEL + body


@dataclass(frozen=True, slots=True)
class Statement:
    """One item: `{campaignId, digest, redeemedAt}`, `{campaignId, digest, blockedAt}` or `{campaignId, completeTo}`."""

    kind: MessageType  # of its message
    campaign_id: str
    digest: str  # empty for COMPLETE
    at: str  # its time, as the issuer wrote it

    @classmethod
    def parse(cls, raw: object, kind: MessageType) -> Statement:
        """Read one raw item of a message of this type. Raises PermanentFailure INVALID_BODY naming the field."""
        if not isinstance(raw, Mapping):
            raise _invalid(f"an item should be an object, found {type(raw).__name__}")
        campaign_id, digest, at = (raw.get(name) for name in ("campaignId", "digest", _TIMES[kind]))
        if not isinstance(campaign_id, str) or not is_selection_id(campaign_id):
            raise _invalid("field campaignId is missing or not an id")
        if not isinstance(at, str) or not _TIME.fullmatch(at) or seconds(at) is None:
            raise _invalid(f"field {_TIMES[kind]} should be a time such as 2027-03-01T09:00:00.000Z")
        if kind is MessageType.COMPLETE:
            return cls(kind, campaign_id, "", at)
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise _invalid("field digest should be 64 lowercase hex digits")
        return cls(kind, campaign_id, digest, at)

    def as_json(self) -> dict[str, str]:
        named = {"digest": self.digest} if self.digest else {}
        return {"campaignId": self.campaign_id, **named, _TIMES[self.kind]: self.at}


def _invalid(error: str) -> PermanentFailure:
    return PermanentFailure(Reason.INVALID_BODY, error)
