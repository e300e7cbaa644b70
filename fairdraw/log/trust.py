"""What a reader trusts: the lead of beacons, the keys of a log, its witnesses, and how many of these have to cosign."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple, NoReturn

from fairdraw.errors import DrawError
from fairdraw.log.note import COSIGNATURES, SIGNATURE, NoteError, VerifierKey
from fairdraw.maths.files import Fields, parse_any_layout, sha256_hex
from fairdraw.terms import LEAD_SECONDS, QUICKNET_HASH, Chain

# The fields of keys.json.
LOG_KEYS = ("log", "need", "witnesses")
TRUST, POLICY = "trust file", "policy"
# Words and bytes of a policy.
_NONE, _CONTROL = "none", re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
# Hex digits of a fingerprint, and of each of its groups.
_FINGERPRINT, _GROUP = 16, 4


@dataclass(frozen=True, slots=True)
class Quorum:
    """Who has to cosign: at least `need` of the members, each the key of a witness or a group like this one.

    No key is in it twice. With `need` 0 none of them has to.
    """

    need: int = 0
    members: tuple[VerifierKey | Quorum, ...] = ()

    @property
    def witnesses(self) -> tuple[VerifierKey, ...]:
        groups = [each.witnesses if isinstance(each, Quorum) else (each,) for each in self.members]
        return tuple(key for group in groups for key in group)

    @property
    def colluders(self) -> int:
        """How many witnesses at least have to collude with the operator, so that two histories of the log are both
        cosigned by enough. 0: none has to, because two sets that share no witness are each enough.
        """
        # A member counts for both histories at its own price, and for one of them for nothing.
        prices = sorted(each.colluders if isinstance(each, Quorum) else 1 for each in self.members)
        return sum(prices[: max(0, 2 * self.need - len(prices))])

    def met_at(self, times: Mapping[VerifierKey, float]) -> float:
        """When enough had cosigned, by the time of each key's cosignature; infinite for never."""
        if not self.need:
            return -inf
        found = [
            each.met_at(times) if isinstance(each, Quorum) else times.get(each, inf) for each in self.members
        ]
        return sorted(found)[self.need - 1]

    def __str__(self) -> str:
        groups = any(isinstance(each, Quorum) for each in self.members)
        return f"{self.need} of {len(self.members)}" + (" groups" if groups else "")

    def is_met_by(self, keys: Collection[VerifierKey]) -> bool:
        return self.met_at(dict.fromkeys(keys, 0.0)) < inf


@dataclass(frozen=True, slots=True)
class LogKeys:
    """The keys of a log, and the quorum of its witnesses."""

    log: tuple[VerifierKey, ...] = ()
    quorum: Quorum = field(default_factory=Quorum)

    @staticmethod
    def read(fields: Fields) -> LogKeys:
        """Read `{"log": [key], "need": n, "witnesses": [key]}`. Raises DrawError."""
        witnesses, need = keys_in(fields, "witnesses", COSIGNATURES), fields.integer("need")
        if need > len(witnesses):
            fields.refuse("need", f"{need} witnesses of {len(witnesses)} cannot be needed")
        return LogKeys(keys_in(fields, "log", (SIGNATURE,)), Quorum(need, witnesses))


def keys_in(fields: Fields, key: str, kinds: Collection[int]) -> tuple[VerifierKey, ...]:
    """The list of keys under `key`, each of one of these types; none is there twice. Raises DrawError."""
    found: list[VerifierKey] = []
    for each in fields.list(key):
        if not isinstance(each, str):
            fields.refuse(key, "texts of keys are needed")
        try:
            found.append(key_of(each, kinds))
        except NoteError as error:
            fields.refuse(key, str(error))
    try:
        require_distinct(found, names=key == "witnesses")
    except NoteError as error:
        fields.refuse(key, str(error))
    return tuple(found)


def key_of(text: str, kinds: Collection[int]) -> VerifierKey:
    """Read a key of one of these types. Raises NoteError."""
    key = VerifierKey.parse(text)
    if key.kind not in kinds:
        wanted = " or ".join(f"0x{kind:02x}" for kind in kinds)
        raise NoteError(f"the key of {key.name} has type 0x{key.kind:02x}, not {wanted}")
    return key


def require_distinct(keys: Collection[VerifierKey], *, names: bool) -> None:
    """Raise NoteError for a key that is there twice, and with `names` for a name: each would count as two."""
    seen: dict[object, str] = {}
    for key in keys:
        for mark in (key.public, *([key.name] if names else [])):
            if mark in seen:
                raise NoteError(f"{key.name} and {seen[mark]} are the same: one would count as two")
            seen[mark] = key.name


class Policy(NamedTuple):
    """What a policy says."""

    keys: LogKeys
    # Where witnesses can be asked.
    addresses: dict[VerifierKey, str]


def parse_policy(data: bytes) -> Policy:
    """Raises DrawError with the line that is wrong."""
    reader = _Reader()
    if _CONTROL.search(data):
        raise DrawError(POLICY, "a control character other than tab and line feed")
    # Names are octets: no two texts that look alike are one.
    for number, line in enumerate(data.decode("latin-1").split("\n"), 1):
        try:
            reader.line([word for word in line.replace("\t", " ").split(" ") if word])
        except NoteError as error:
            raise DrawError(POLICY, f"line {number}: {error}") from None
    if reader.quorum is None:
        raise DrawError(POLICY, "no line says the quorum")
    try:
        require_distinct(reader.logs, names=False)
        require_distinct(reader.quorum.witnesses, names=True)
    except NoteError as error:
        raise DrawError(POLICY, str(error)) from None
    return Policy(LogKeys((*reader.logs,), reader.quorum), reader.addresses)


class _Reader:
    def __init__(self) -> None:
        self.logs: list[VerifierKey] = []
        self.addresses: dict[VerifierKey, str] = {}
        self.quorum: Quorum | None = None
        self._named: dict[str, VerifierKey | Quorum] = {}
        self._members: set[str] = set()

    def line(self, words: Sequence[str]) -> None:
        """Raises NoteError."""
        match words:
            case []:
                return
            case [word, *_] if word.startswith("#"):
                return
            case ["log", vkey] | ["log", vkey, _]:
                self.logs.append(key_of(vkey, (SIGNATURE,)))
            case ["witness", name, vkey, *address] if len(address) <= 1:
                key = key_of(vkey, COSIGNATURES)
                self._name(name, key)
                for each in address:
                    self.addresses[key] = each.rstrip("/")
            case ["group", name, need, *members] if members:
                found = tuple(self._member(each) for each in members)
                count = {"all": len(found), "any": 1}.get(need) or self._number(need, len(found))
                self._name(name, Quorum(count, found))
            case ["quorum", name]:
                if self.quorum is not None:
                    _refuse("a second quorum")
                chosen = Quorum() if name == _NONE else self._defined(name)
                self.quorum = chosen if isinstance(chosen, Quorum) else Quorum(1, (chosen,))
            case _:
                _refuse(f"{' '.join(words)[:80]!a} is no line of a policy")

    def _name(self, name: str, meant: VerifierKey | Quorum) -> None:
        if name == _NONE or name in self._named:
            _refuse(f"the name {name!a} is taken")
        self._named[name] = meant

    def _defined(self, name: str) -> VerifierKey | Quorum:
        if name not in self._named:
            _refuse(f"no line before this one defines {name!a}")
        return self._named[name]

    def _member(self, name: str) -> VerifierKey | Quorum:
        if name in self._members:
            _refuse(f"{name!a} is a member already")
        self._members.add(name)
        return self._defined(name)

    @staticmethod
    def _number(text: str, most: int) -> int:
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
            _refuse(f"{text[:20]!a} is neither all, any, nor a number from 1 to {most}")
        return int(text)


def _refuse(why: str) -> NoReturn:
    raise NoteError(why)


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
