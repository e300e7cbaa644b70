"""The two keys of a campaign: the unit key, under which its draw publishes units, and the code key, which signs codes.

They are one secret, `campaign-keys/<campaignId>`, made once for ever: everything that was published under them could
not be checked under others. The campaign's document has their public halves, so that a secret that was lost or
replaced is found and never made again.
"""

from __future__ import annotations

import re
import secrets as randomness
from dataclasses import dataclass, field

from fairdraw import bls
from fairdraw.maths.files import sha256_hex
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.reasons import UsageError
from regworkers_core.runtime import Runtime

_TEXT = re.compile(r"([0-9a-f]{64}) ([0-9a-f]{64})", re.ASCII)
_UNIT_KEY_BYTES = 32
_DESCRIPTION = "The unit key and the code key of a campaign: never changed, never deleted."


@dataclass(frozen=True, slots=True)
class CampaignKeys:
    """Both keys of a campaign, 32 bytes each."""

    unit: bytes = field(repr=False)
    code: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> CampaignKeys:
        return cls(randomness.token_bytes(_UNIT_KEY_BYTES), bls.new_secret())

    @classmethod
    def parse(cls, text: str) -> CampaignKeys:
        """Raises ValueError, whose text does not show the secret."""
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ValueError(f"two numbers of 64 hex digits are needed, found {len(text)} characters")
        keys = cls(bytes.fromhex(found[1]), bytes.fromhex(found[2]))
        bls.public_key(keys.code)
        return keys

    @property
    def text(self) -> str:
        """The secret."""
        return f"{self.unit.hex()} {self.code.hex()}"

    @property
    def unit_key_hash(self) -> str:
        return sha256_hex(self.unit)

    @property
    def code_key(self) -> str:
        """The public half of the code key, 192 hex digits."""
        return bls.public_key(self.code)


def secret_of(campaign_id: str) -> str:
    """Return the name in the secret store, without the environment's prefix."""
    return f"campaign-keys/{campaign_id}"


def read_keys(runtime: Runtime, campaign: Campaign) -> CampaignKeys | None:
    """Read the keys; None for a campaign that has none yet. Raises UsageError if they are lost, malformed, or others
    than the campaign's document names, TransientFailure.
    """
    text = runtime.secrets.get(secret_of(campaign.campaign_id))
    if text is not None:
        return _checked(runtime, campaign, text)
    if campaign.unit_key_hash or campaign.code_key:
        raise UsageError(
            f"the keys of campaign {campaign.campaign_id} are lost: restore the secret {_name(runtime, campaign)};"
            " others could not check what was published"
        )
    return None


def ensure_keys(runtime: Runtime, campaign: Campaign) -> CampaignKeys:
    """Read the keys, or make them now. Of concurrent calls one makes them, and all return the same. Raises as
    `read_keys`.
    """
    keys = read_keys(runtime, campaign)
    if keys is None:
        name, made = secret_of(campaign.campaign_id), CampaignKeys.generate()
        keys = _checked(runtime, campaign, runtime.secrets.create(name, made.text, description=_DESCRIPTION))
    if (campaign.unit_key_hash, campaign.code_key) != (keys.unit_key_hash, keys.code_key):
        runtime.campaigns.set_keys(campaign.campaign_id, keys.unit_key_hash, keys.code_key)
        runtime.campaign_cache.forget(campaign)
        # Another writer may have named others meanwhile.
        _checked(runtime, runtime.campaigns.require_id(campaign.campaign_id), keys.text)
    return keys


def stored_keys(runtime: Runtime) -> frozenset[str]:
    """The names of all secrets with keys of campaigns, none of which is read. Raises TransientFailure."""
    return frozenset(runtime.secrets.names(secret_of("")))


def secret_needed(runtime: Runtime, campaign: Campaign) -> str:
    """The name of the secret without which the campaign cannot go on; empty if it needs none now."""
    has = campaign.code_key is not None and campaign.status is not CampaignStatus.COMPLETED
    return _name(runtime, campaign) if has or campaign.status is CampaignStatus.OPEN else ""


def _checked(runtime: Runtime, campaign: Campaign, text: str) -> CampaignKeys:
    try:
        keys = CampaignKeys.parse(text)
    except ValueError as error:
        raise UsageError(
            f"secret {_name(runtime, campaign)} is not the keys of a campaign: {error}: restore its first version"
        ) from None
    named = (
        campaign.unit_key_hash or keys.unit_key_hash,
        campaign.code_key or keys.code_key,
    )
    if named != (keys.unit_key_hash, keys.code_key):
        raise UsageError(
            f"secret {_name(runtime, campaign)} has other keys than campaign {campaign.campaign_id} names: restore"
            " the first version of the secret"
        )
    return keys


def _name(runtime: Runtime, campaign: Campaign) -> str:
    return runtime.names.prefix + secret_of(campaign.campaign_id)
