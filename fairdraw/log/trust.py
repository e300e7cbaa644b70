"""What a reader trusts: the beacon's lead, the keys of a log, and its witnesses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fairdraw.errors import DrawError
from fairdraw.log.keys import LOG_KEYS, LogKeys
from fairdraw.log.note import VerifierKey
from fairdraw.log.policy import parse_policy
from fairdraw.maths.files import Fields, parse_any_layout, sha256_hex
from fairdraw.terms import LEAD_SECONDS, QUICKNET_HASH, Chain

TRUST = "trust file"
# Hex digits of a fingerprint, and of each of its groups.
_FINGERPRINT, _GROUP = 16, 4
WEAK_QUORUM = (
    "two sets of witnesses that share none are each enough: the operator alone can show two people two logs"
)


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key that a check relies on."""

    # `beacon`, `log` or `witness`.
    what: str
    name: str
    # The start of the SHA-256 of the public key.
    fingerprint: str
    # Who gave it: `receipt`, `rules` (the key of quicknet), or `trust` (the file).
    given: str

    @staticmethod
    def of(what: str, name: str, public: bytes, given: str) -> TrustedKey:
        digits = sha256_hex(public)[:_FINGERPRINT]
        groups = [digits[at : at + _GROUP] for at in range(0, _FINGERPRINT, _GROUP)]
        return TrustedKey(what, name, " ".join(groups), given)


@dataclass(frozen=True, slots=True)
class Trust:
    """What a reader trusts: a file `{"beacon": {chain hash: {"lead": seconds}}, "log": [key], "need": n, "witnesses":
    [key]}`, where an address may follow the key of a witness, or a policy (C2SP tlog-policy).

    What it does not name is taken as the receipt has it: the log's keys, the witnesses with their number.
    """

    # Least seconds between the commit and the round, by the hash of the chain.
    leads: Mapping[str, int] = field(default_factory=dict)
    keys: LogKeys = field(default_factory=LogKeys)
    # Where witnesses can be asked what they signed.
    addresses: Mapping[VerifierKey, str] = field(default_factory=dict)

    @staticmethod
    def parse(data: bytes) -> Trust:
        """Read a trust file in JSON, in any layout, or a policy. Raises DrawError with the key or line and what was
        found.
        """
        if data.lstrip()[:1] == b"{":
            return _in_json(data)
        keys, addresses = parse_policy(data)
        if keys.quorum.need and not keys.log:
            raise DrawError(TRUST, _NO_LOG_KEY)
        return Trust({}, keys, addresses)

    @property
    def vouches(self) -> bool:
        """Whether a receipt can hold by it: it names the keys of the log and the witnesses."""
        return bool(self.keys.log and self.keys.quorum.members)

    def lead(self, chain_hash: str) -> int | None:
        """Least seconds between the commit and the round of this chain; None if it is unknown."""
        return self.leads.get(chain_hash, LEAD_SECONDS if chain_hash == QUICKNET_HASH else None)

    def beacon_key(self, chain: Chain) -> TrustedKey:
        given = "rules" if chain.hash == QUICKNET_HASH else "trust" if chain.hash in self.leads else "receipt"
        return TrustedKey.of("beacon", chain.beacon_id, bytes.fromhex(chain.public_key), given)


_NO_LOG_KEY = (
    "log: witnesses, and no key of the log: a second log of the operator's could have the same witnesses"
)


def _in_json(data: bytes) -> Trust:
    try:
        document = parse_any_layout(data)
    except ValueError:
        raise DrawError(TRUST, "not a JSON document") from None
    fields = Fields(TRUST, "", document, ("beacon", *LOG_KEYS))
    chains, leads = fields.nested("beacon"), {}
    for chain in chains.names:
        leads[chain] = chains.nested(chain, ("lead",)).integer("lead", 1)
        if chain == QUICKNET_HASH and leads[chain] < LEAD_SECONDS:
            chains.refuse(chain, f"a lead of at least {LEAD_SECONDS} s is needed for quicknet")
    texts = [str(each).partition(" ") for each in fields.list("witnesses")]
    keys = LogKeys.read(
        Fields(TRUST, "", {**document, "witnesses": [text for text, _, _ in texts]}, ("beacon", *LOG_KEYS))
    )
    addresses = [address.strip().rstrip("/") for _, _, address in texts]
    need, number = keys.quorum.need, len(keys.quorum.members)
    if number and 2 * need <= number:
        fields.refuse("need", f"{need} of {number} witnesses: more than half are needed, else {WEAK_QUORUM}")
    if number and not keys.log:
        fields.refuse("", _NO_LOG_KEY)
    known = {key: at for key, at in zip(keys.quorum.witnesses, addresses, strict=True) if at}
    return Trust(leads, keys, known)
