"""The secret behind a commit-reveal seed: made once, kept in the secret store, revealed after the commit.

Only its SHA-256, over the 32 raw bytes, is ever published before that: the commitment in the campaign's `draw`.
"""

from __future__ import annotations

import re
import secrets as randomness
from collections.abc import Callable
from typing import NamedTuple

from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.maths.manifest import commitment_of

SECRET_BYTES = 32
_HEX = re.compile(r"[0-9a-f]{64}")
Entropy = Callable[[int], bytes]


class Commitment(NamedTuple):
    """`late`: it was published only when the campaign could take entries already, so entrants could not see it
    before; None where somebody else published it, and did not say when.
    """

    commitment: str
    late: bool | None


def secret_name(campaign_id: str) -> str:
    """In the secret store, behind the environment's prefix."""
    return f"draw-secret/{campaign_id}"


def make_secret(runtime: Runtime, campaign_id: str, *, entropy: Entropy = randomness.token_bytes) -> str:
    """Make the campaign's secret unless it stands, and return the commitment to what stands.

    Raises UsageError for a secret that is not 64 hex digits.
    """
    stands = runtime.secrets.create(secret_name(campaign_id), entropy(SECRET_BYTES).hex())
    return commitment_of(_checked(runtime, campaign_id, stands))


def ensure_commitment(
    runtime: Runtime, campaign: Campaign, *, entropy: Entropy = randomness.token_bytes
) -> Commitment:
    """The campaign's commitment; one that came without gets it now, which is late and is said to be.

    Raises UsageError when the secret behind a published commitment is not in the store: nothing that was
    committed to could ever be revealed.
    """
    if campaign.draw.commitment is None:
        commitment = make_secret(runtime, campaign.campaign_id, entropy=entropy)
        runtime.campaigns.set_commitment(campaign.campaign_id, commitment, iso(runtime.clock()))
        runtime.campaign_cache.forget(campaign)
        campaign = runtime.campaigns.require_id(campaign.campaign_id)
    reveal_of(runtime, campaign)
    draw = campaign.draw
    late = None if draw.committed_at is None else draw.committed_at > campaign.takes_entries_from
    return Commitment(draw.commitment or "", late)


def reveal(runtime: Runtime, campaign_id: str) -> str:
    """The secret in hex: call it after the commit only. Raises UsageError as `ensure_commitment` does."""
    return reveal_of(runtime, runtime.campaigns.require_id(campaign_id))


def reveal_of(runtime: Runtime, campaign: Campaign) -> str:
    """As `reveal`, for a campaign that was read just now."""
    name = runtime.names.prefix + secret_name(campaign.campaign_id)
    stands = runtime.secrets.get(secret_name(campaign.campaign_id))
    if stands is None:
        raise UsageError(
            f"the secret behind the commitment of {campaign.campaign_id} is not in the secret store: put it "
            f"under {name}, or draw with selection.seedSource drand"
        )
    if commitment_of(_checked(runtime, campaign.campaign_id, stands)) != campaign.draw.commitment:
        raise UsageError(
            f"secret {name} is not the one that {campaign.campaign_id} committed to: find out who changed "
            "secret or commitment, restore the secret, or draw with selection.seedSource drand"
        )
    return stands


def _checked(runtime: Runtime, campaign_id: str, secret: str) -> str:
    if not _HEX.fullmatch(secret):
        raise UsageError(
            f"secret {runtime.names.prefix}{secret_name(campaign_id)} should be 64 lowercase hex digits, "
            f"found {len(secret)} characters of another kind: restore it from its earlier version"
        )
    return secret
