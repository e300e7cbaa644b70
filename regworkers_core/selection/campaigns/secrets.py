"""The secret of a commit-reveal seed: made once, kept in the secret store, revealed after the commit.

Before that only the commitment is published, in the campaign's `draw`: the SHA-256 of its 32 raw bytes.
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
    """A published commitment. `late` says that the campaign could take entries before it was published; None if another
    system published it without the time.
    """

    commitment: str
    late: bool | None


def secret_name(campaign_id: str) -> str:
    """Return the name in the secret store, without the environment's prefix."""
    return f"draw-secret/{campaign_id}"


def make_secret(runtime: Runtime, campaign_id: str, *, entropy: Entropy = randomness.token_bytes) -> str:
    """Create the campaign's secret unless it exists, and return the commitment to it. Raises UsageError for a secret
    that is not 64 hex digits.
    """
    secret = runtime.secrets.create(secret_name(campaign_id), entropy(SECRET_BYTES).hex())
    return commitment_of(_checked(runtime, campaign_id, secret))


def ensure_commitment(
    runtime: Runtime, campaign: Campaign, *, entropy: Entropy = randomness.token_bytes
) -> Commitment:
    """Return the campaign's commitment; a campaign without one gets it now, which counts as late.

    Raises UsageError when the secret behind a published commitment is not in the store, so that it could not be
    revealed.
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
    """Return the secret in hex; call it only after the commit. Raises as `ensure_commitment`."""
    return reveal_of(runtime, runtime.campaigns.require_id(campaign_id))


def reveal_of(runtime: Runtime, campaign: Campaign) -> str:
    """As `reveal`, for a campaign that was just read."""
    name = runtime.names.prefix + secret_name(campaign.campaign_id)
    secret = runtime.secrets.get(secret_name(campaign.campaign_id))
    if secret is None:
        raise UsageError(
            f"the secret behind the commitment of {campaign.campaign_id} is not in the secret store: put it "
            f"under {name}, or draw with selection.seedSource drand"
        )
    if commitment_of(_checked(runtime, campaign.campaign_id, secret)) != campaign.draw.commitment:
        raise UsageError(
            f"secret {name} is not the one that {campaign.campaign_id} committed to: find out who changed "
            "secret or commitment, restore the secret, or draw with selection.seedSource drand"
        )
    return secret


def _checked(runtime: Runtime, campaign_id: str, secret: str) -> str:
    if not _HEX.fullmatch(secret):
        raise UsageError(
            f"secret {runtime.names.prefix}{secret_name(campaign_id)} should be 64 lowercase hex digits, "
            f"found {len(secret)} characters: restore its earlier version"
        )
    return secret
