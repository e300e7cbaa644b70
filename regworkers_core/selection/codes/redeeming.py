"""Takes what the issuer says of codes: redeemed, blocked, complete up to a time (the watermark).

A repeat changes nothing, and items may come in any order, but for one rule: a redemption that comes after the watermark
and was before it is refused, as is that of a code whose seat was passed on. Both are dead letters, for a person to
settle with the issuer. A code is redeemed, or its seat passes on, by one conditional update each, so never both.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import orjson

from regworkers_core.adapters.files import in_batches
from regworkers_core.adapters.mongo.codes import Code, CodeStatus
from regworkers_core.domain.campaign import IssuerKey
from regworkers_core.domain.events import PRODUCER, ProducerKey, ProducerRole, Signature
from regworkers_core.domain.messages import MAX_ITEMS, ItemSubject, MessageType
from regworkers_core.domain.reasons import Failure, PermanentFailure, Reason, TransientFailure, UsageError
from regworkers_core.domain.redemption import ISSUER, Statement, signed_text
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.handling import Handled, Requested
from regworkers_core.engine.queue import Received
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.runtime import Runtime

# Characters of a signature, with room.
_LONGEST = 256
# Clocks under NTP differ by less.
_CLOCK_SECONDS = 60.0
_WHY = "stated by the issuer"
# What is redeemed counts first, and the watermark last: a batch may hold a code twice, and its order says nothing.
_ORDER = (MessageType.REDEEMED, MessageType.BLOCKED, MessageType.COMPLETE)


class Keys(Protocol):
    def sign(self, role: ProducerRole, body: bytes) -> str: ...
    def accepted(self, signature: Signature, sent_at: float | None = None, /) -> ProducerKey | None: ...


class IssuerSeal:
    """`engine.handling.Seal` over the attribute `issuer`: each campaign that a message names has to name the key that
    signed it. What the drain itself sends on is signed as the role `selection`, since only the issuer has its key.
    """

    def __init__(self, issuer_keys: Callable[[str], Sequence[IssuerKey]], keys: Keys) -> None:
        self._issuer_keys, self._keys = issuer_keys, keys

    def check(self, message: Received, items: Sequence[Any]) -> None:
        """Raises PermanentFailure FORGED; its error repeats nothing that an unknown sender has written."""
        if PRODUCER in message.attributes:
            self._require_ours(message)
            return
        key_id, _, signature = message.attributes.get(ISSUER, "").partition(":")
        if not signature:
            raise _forged("it has no attribute issuer, <key id>:<signature>")
        named = {each.get("campaignId") if isinstance(each, dict) else None for each in items}
        if not all(isinstance(each, str) for each in named):
            raise _forged("an item names no campaign, whose key could have signed it")
        for campaign_id in sorted(map(str, named)):
            key = next((each for each in self._issuer_keys(campaign_id) if each.id == key_id), None)
            if key is None:
                raise _forged("a campaign that it names does not name the key of its signature")
            if not is_signed(message.body.encode(errors="surrogatepass"), signature, key):
                raise _forged("its body is not what the issuer's key signed")

    def _require_ours(self, message: Received) -> None:
        given = Signature.parse(message.attributes[PRODUCER])
        key = self._keys.accepted(given, message.sent_at) if given else None
        if given is None or given.role is not ProducerRole.SELECTION or key is None:
            raise _forged("its attribute producer is not that of the role selection")
        mac = key.mac(message.body.encode(errors="surrogatepass"))
        if not hmac.compare_digest(mac.encode(), given.mac.encode(errors="replace")):
            raise _forged("its body is not what the role selection signed")

    def kept(self, message: Received) -> Mapping[str, str]:
        given = {name: message.attributes.get(name, "") for name in (ISSUER, PRODUCER)}
        # A longer one is no signature, and could make the dead letter larger than SQS takes.
        return {name: value for name, value in given.items() if 0 < len(value) <= _LONGEST}

    def attributes(self, body: bytes) -> Mapping[str, str]:
        return {PRODUCER: self._keys.sign(ProducerRole.SELECTION, body)}


def is_signed(body: bytes, signature: str, key: IssuerKey) -> bool:
    """Whether the key of an issuer signed this body; `signature` is in hex."""
    # Late: what only names this drain does not need it.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.key))
        public.verify(bytes.fromhex(signature), signed_text(body))
    except (InvalidSignature, ValueError):
        return False
    return True


class Redeeming:
    """An `engine.handling.Handler[Statement]`, shared by all threads of a drain."""

    kinds = _ORDER

    def __init__(self, runtime: Runtime, *, run_id: str, on_step: OnStep = no_step) -> None:
        self._runtime, self._run_id, self._on_step = runtime, run_id, on_step
        self.seal = IssuerSeal(partial(_keys_of, runtime), runtime.producer_keys)

    def parse(self, raw: object, kind: MessageType) -> Statement:
        return Statement.parse(raw, kind)

    def key(self, item: Statement) -> Hashable:
        return item

    def subject(self, item: Statement) -> ItemSubject:
        return ItemSubject(f"{item.kind}:{item.digest or item.at}", {"campaignId": item.campaign_id})

    def handle(self, asked: Sequence[Requested[Statement]]) -> Handled:
        """Take every item by itself. Raises TransientFailure when MongoDB does not answer."""
        handled = Handled()
        stated: dict[str, list[Statement]] = {}
        for each in dict.fromkeys(each.item for each in asked):
            stated.setdefault(each.campaign_id, []).append(each)
        for campaign_id, items in stated.items():
            self._take(campaign_id, items, handled)
        return handled

    def _take(self, campaign_id: str, items: Sequence[Statement], handled: Handled) -> None:
        runtime = self._runtime
        record = runtime.draws.light(campaign_id)
        watermark = record.complete_to if record else ""
        codes = runtime.codes.by_digest(campaign_id, [each.digest for each in items if each.digest])
        blocked: list[Statement] = []
        for item in sorted(items, key=lambda each: _ORDER.index(each.kind)):
            outcome: str | Failure
            if item.kind is MessageType.COMPLETE:
                self._block(campaign_id, blocked, codes, handled)
                blocked = []
                outcome = self._complete(item, known=record is not None)
            elif problem := _refusal(item, codes.get(item.digest), watermark):
                outcome = PermanentFailure(Reason.ISSUER_CONFLICT, problem)
            elif item.kind is MessageType.REDEEMED:
                outcome = self._redeem(item, codes[item.digest], watermark)
            else:
                blocked.append(item)
                continue
            if isinstance(outcome, str) and outcome != "unchanged":
                handled.counts[outcome] += 1
                outcome = "applied"
            handled.outcomes[item] = outcome
        self._block(campaign_id, blocked, codes, handled)
        self._on_step("redeem.after_take")

    def _complete(self, item: Statement, *, known: bool) -> str | Failure:
        if not known:
            return PermanentFailure(Reason.ISSUER_CONFLICT, "the campaign has no draw, so no fan has a code")
        if item.at > iso(self._runtime.clock() + _CLOCK_SECONDS):
            return PermanentFailure(Reason.ISSUER_CONFLICT, "completeTo is ahead of the clock")
        moved = self._runtime.draw_markets.complete_to(item.campaign_id, item.at, iso(self._runtime.clock()))
        return "completed" if moved else "unchanged"

    def _redeem(self, item: Statement, code: Code, watermark: str) -> str | Failure:
        if code.status is CodeStatus.REDEEMED:
            return "unchanged"
        codes = self._runtime.codes
        if codes.redeem(item.campaign_id, code.code, at=item.at, run_id=self._run_id):
            return "redeemed"
        # A repeat of it was taken meanwhile, or its seat passed on.
        changed = codes.get([code.code]).get(code.code)
        if problem := _refusal(item, changed, watermark):
            return PermanentFailure(Reason.ISSUER_CONFLICT, problem)
        if changed is not None and changed.status is CodeStatus.REDEEMED:
            return "unchanged"
        raise TransientFailure("mongo", "a code changed while it was recorded as redeemed")

    def _block(
        self, campaign_id: str, items: Sequence[Statement], codes: Mapping[str, Code], handled: Handled
    ) -> None:
        """One update records all of them, before a watermark that came with them counts."""
        if not items:
            return
        named = [codes[each.digest].code for each in items]
        at = iso(self._runtime.clock())
        handled.counts["blocked"] += self._runtime.codes.block(
            campaign_id, named, at=at, reason=_WHY, run_id=self._run_id
        )
        for each in items:
            handled.outcomes[each] = "unchanged" if codes[each.digest].blocked else "applied"


def _keys_of(runtime: Runtime, campaign_id: str) -> Sequence[IssuerKey]:
    campaign = runtime.campaigns.get(campaign_id)
    return campaign.issuer_keys if campaign else ()


def _refusal(item: Statement, code: Code | None, watermark: str) -> str:
    """Why what is stated of a code contradicts what is known; empty if it does not."""
    if code is None:
        return "no code of the campaign has this digest: was it exported for the issuer?"
    if code.status not in (CodeStatus.ASSIGNED, CodeStatus.REDEEMED):
        return f"the code is {code.status}: no fan holds it"
    if item.kind is MessageType.BLOCKED or code.status is CodeStatus.REDEEMED:
        return ""
    if code.passed_on:
        return f"its seat was passed on in phase {code.passed_on}: the fan's seat may be another fan's by now"
    if item.at <= watermark:
        return "it is said after the issuer said that all of that time was stated"
    return ""


def _forged(error: str) -> PermanentFailure:
    return PermanentFailure(Reason.FORGED, error)


class FromFile(NamedTuple):
    """What became of the lines of a file."""

    # How many were redeemed, blocked, completed, unchanged.
    taken: Counter[str]
    # (line, why).
    refused: list[tuple[int, str]]


def take_file(runtime: Runtime, campaign_id: str, path: Path, *, run_id: str, dry_run: bool) -> FromFile:
    """Take the statements of a file, which an operator vouches for in place of a signature: a JSON object on each line,
    an item with the `type` of its message. A dry run reads them only.

    Raises UsageError for a file that cannot be read, TransientFailure (repeat it: what was taken is unchanged).
    """
    done, stated = FromFile(Counter(), []), dict[Statement, int]()
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    stated.setdefault(_of_line(line, campaign_id), number)
                except PermanentFailure as failure:
                    done.refused.append((number, failure.error))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    if dry_run:
        done.taken.update(each.kind.value for each in stated)
        return done
    redeeming = Redeeming(runtime, run_id=run_id)
    for batch in in_batches(sorted(stated, key=lambda each: _ORDER.index(each.kind)), MAX_ITEMS):
        handled = redeeming.handle([Requested(each, "", "") for each in batch])
        done.taken.update(handled.counts)
        for item, outcome in handled.outcomes.items():
            if isinstance(outcome, PermanentFailure):
                done.refused.append((stated[item], outcome.error))
            else:
                done.taken["unchanged"] += outcome == "unchanged"
    return done


def _of_line(line: bytes, campaign_id: str) -> Statement:
    try:
        raw = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise PermanentFailure(Reason.INVALID_BODY, "the line is not JSON") from None
    kind = raw.get("type") if isinstance(raw, dict) else None
    if kind not in _ORDER:
        raise PermanentFailure(Reason.INVALID_BODY, f"field type should be one of {', '.join(_ORDER)}")
    statement = Statement.parse(raw, MessageType(kind))
    if statement.campaign_id != campaign_id:
        raise PermanentFailure(Reason.INVALID_BODY, "field campaignId names another campaign")
    return statement
