"""Plays the rounds of a campaign whose seats pass on by themselves: its clock, its issuer, and a network that loses,
doubles, delays and forges messages.

Most winners of each phase redeem their codes. The issuer states everything again every ten minutes until all of it is
known, as one that waits for answers would.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fairdraw.log.trust import Trust
from fairdraw.maths.files import canonical_bytes
from fairdraw.proof.check import check_receipt
from fairdraw.proof.checker import State
from regworkers_core.domain.messages import MessageType
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.redemption import Statement
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.queue import Outgoing
from regworkers_core.runtime import Runtime
from regworkers_core.selection.codes.issuing import put_for_issuer
from regworkers_core.selection.drains import NOTIFICATIONS, REDEEM, SELECTIONS
from regworkers_core.selection.draw.changes import open_phase
from regworkers_core.selection.draw.passing_on import RoundState, claim, round_of
from regworkers_core.selection.public.source import campaign_source
from regworkers_core.settings import Settings
from regworkers_local.issuer import Issuer, Known, read_export
from tests.selection.draw.world import CAMPAIGN, STEPS, artefact, draw, entry
from tests.support.beacon import OWN, SETTINGS
from tests.support.drains import run, taken

TRUST = Trust({OWN.chain.hash: int(SETTINGS["lead_seconds"])})
HOUR = 3600.0
_PASS_SECONDS = 600.0
_EXPIRE_HOURS = 24
# Statements of one message: a message that is lost takes them all with it.
_TOGETHER = 100
# Of a draw, one after another.
_RUNS = 5
STRANGER = Issuer(bytes([9]) * 32, "k1")


@dataclass
class Rounds:
    """A campaign of `seats` seats over two markets, with `entrants` for each seat. `trouble`: of 100 messages, how
    many are lost, doubled, late and forged, each.
    """

    settings: Settings
    folder: Path
    seats: int
    rounds: int
    trouble: int = 10
    seed: int = 1
    entrants: int = 3
    issuer: Issuer = Issuer(bytes([7]) * 32, "k1")
    say: Callable[[str], None] = lambda _: None
    now: float = field(default_factory=time.time)
    # When each round began, and how long the seats of it were idle at most.
    began: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    lapsed: list[int] = field(default_factory=list)
    forged: int = 0
    # By the mailer's key, how often a message was handed to it; and by ref, the messages of winners.
    mails: Counter[str] = field(default_factory=Counter)
    wins: Counter[str] = field(default_factory=Counter)
    # By step, of this machine's clock.
    seconds: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.runtime = Runtime(self.settings, clock=lambda: self.now)
        self.random = random.Random(self.seed)
        self._late: list[Outgoing] = []
        self._known: list[Known] = []

    @property
    def capacities(self) -> dict[str, int]:
        berlin = self.seats * 3 // 5
        return {"berlin": berlin, "paris": self.seats - berlin}

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Inside, time is that of this step."""
        began, cpu = time.monotonic(), time.process_time()
        yield
        spent = time.monotonic() - began
        self.seconds[step] += spent
        self.say(f"{step}: {spent:.1f} s, {time.process_time() - cpu:.1f} s of CPU here")

    def draw(self) -> None:
        """The campaign, and the first phase of its draw."""
        with self.timed("write"):
            self._write()
        self._draw(1)
        self._released()

    def _draw(self, phase: int) -> None:
        """As a run of the job and its retries do: what did not answer is asked again by the next one."""
        for left in reversed(range(_RUNS)):
            steps = draw(self.runtime, phase=phase).steps(unasked=True)
            try:
                for name in (*STEPS, "publish"):
                    with self.timed(name):
                        step = next(steps)
            except TransientFailure as failure:
                self.say(f"{name} is repeated: {failure}")
                if not left:
                    raise
            else:
                assert step.state in ("done", "unchanged"), step
                return

    def _write(self) -> None:
        runtime, key = self.runtime, self.issuer.key
        runtime.database["campaigns"].insert_one(
            {
                "_id": CAMPAIGN,
                "slug": CAMPAIGN,
                "name": "Summer",
                "status": "CLOSED",
                "opensAt": "2026-01-01T00:00:00.000Z",
                "closesAt": "2026-02-01T00:00:00.000Z",
                "markets": [
                    {"marketId": name, "name": name, "capacity": seats}
                    for name, seats in self.capacities.items()
                ],
                "codes": {"expireAfterHours": _EXPIRE_HOURS},
                "issuerKeys": [{"id": key.id, "key": key.key}],
                "passOn": {"rounds": self.rounds, "everyHours": 24, "quiet": ""},
            }
        )
        entrants = self.entrants * self.seats
        for first in range(0, entrants, 10_000):
            last = min(first + 10_000, entrants)
            runtime.database["entries"].insert_many(
                [entry(number, segments=[]) for number in range(first, last)]
            )
        for name, seats in self.capacities.items():
            for first in range(1, 2 * seats + 1, 10_000):
                positions = range(first, min(first + 10_000, 2 * seats + 1))
                runtime.database["codes"].insert_many([_code(name, position) for position in positions])

    def _released(self) -> None:
        """Assign the codes of a phase, notify, and give the issuer what it has to know."""
        runtime = self.runtime
        with self.timed("assign"):
            while runtime.queue(runtime.names.selection_queue).depth().total:
                run(runtime, SELECTIONS, max_seconds=600)
        with self.timed("notify"):
            run(runtime, NOTIFICATIONS, max_seconds=600)
            # What waited for the canary.
            self.now += HOUR
            run(runtime, NOTIFICATIONS, max_seconds=600)
        with self.timed("mail"):
            for item in taken(runtime, runtime.names.notification_queue):
                self.mails[item["key"]] += 1
                self.wins[item["ref"]] += item["type"] == "winner"
        with self.timed("export"):
            path = self.folder / "codes.csv"
            put_for_issuer(runtime, runtime.campaigns.require_id(CAMPAIGN), path)
            self._known = read_export(path)

    def play(self) -> None:
        """All rounds. Raises AssertionError if one does not begin within a day after the end of the codes."""
        for number in range(1, self.rounds + 1):
            end = max(seconds(each.expires_at) or 0.0 for each in self._known if each.expires_at)
            self.now = max(self.now, end - 2 * _PASS_SECONDS)
            give_up = end + 24 * HOUR
            while not self._begins(number):
                self._pass()
                self.now += _PASS_SECONDS
                assert self.now < give_up, round_of(self.runtime, self._campaign())
            phase = self.runtime.draws.get(CAMPAIGN).latest.phase  # type: ignore[union-attr]
            self._draw(phase)
            self._released()

    def _campaign(self):  # type: ignore[no-untyped-def]
        return self.runtime.campaigns.require_id(CAMPAIGN)

    def _begins(self, number: int) -> bool:
        runtime = self.runtime
        if round_of(runtime, self._campaign()).state is not RoundState.DUE:
            return False
        record = runtime.draws.light(CAMPAIGN)
        assert record is not None
        codes = runtime.database["codes"].find(
            {"status": "ASSIGNED", "blockedAt": {"$exists": True}, "passedOn": {"$exists": False}}
        )
        watermark = seconds(record.redemptions["statedAt"]) or 0.0
        ends = {each.digest: seconds(each.expires_at) or 0.0 for each in self._known}
        ready = [max(seconds(each["blockedAt"]) or 0.0, watermark, ends[each["digest"]]) for each in codes]
        self.lapsed.append(len(ready))
        self.idle.append(self.now - min(ready))
        self.began.append(self.now)
        with self.timed("claim"):
            terms = claim(runtime, self._campaign())
        assert terms.round == number and len(terms.strikes) == len(ready)
        # A run that died here finds what it has claimed.
        assert claim(runtime, self._campaign()) == terms
        with self.timed("open"):
            open_phase(runtime, CAMPAIGN, terms, run_id="round")
        return True

    def _pass(self) -> None:
        """The issuer states what is true by now; the network takes its share; the drain takes the rest."""
        runtime = self.runtime
        queue = runtime.queue(runtime.names.redemption_queue)
        stated = list(self.issuer.statements(CAMPAIGN, self._unknown(), self.now))
        sent, self._late = [*self._late], []
        for message in self._messages(stated):
            chance = self.random.randrange(100)
            if chance < self.trouble:
                continue
            if chance < 2 * self.trouble:
                self._late.append(message)
                continue
            sent += [message] * (1 + (chance < 3 * self.trouble))
            if chance < 4 * self.trouble:
                sent += self._forgeries()
        self.random.shuffle(sent)
        with self.timed("send"):
            for first in range(0, len(sent), 10):
                assert not queue.send(sent[first : first + 10])
        with self.timed("redeem"):
            run(runtime, REDEEM, max_seconds=600)

    def _messages(self, stated: Sequence[Statement]) -> Iterator[Outgoing]:
        """Blocks and redemptions, and the watermark once no redemption before it is on the way."""
        *facts, watermark = stated
        for first in range(0, len(facts), _TOGETHER):
            yield from self.issuer.messages(facts[first : first + _TOGETHER])
        if not self._late and all(each.kind is not MessageType.REDEEMED for each in facts):
            yield from self.issuer.messages([watermark])

    def _unknown(self) -> list[Known]:
        """What the issuer got no answer for: the codes of which neither fact is recorded."""
        open_ = {
            each["digest"]
            for each in self.runtime.database["codes"].find(
                {"status": "ASSIGNED", "blockedAt": {"$exists": False}}, {"digest": 1}
            )
        }
        return [each for each in self._known if each.digest in open_]

    def _forgeries(self) -> list[Outgoing]:
        """A stranger redeems what is to lapse, and blocks what was used."""
        given = [each.digest for each in self._known if each.expires_at]
        some = self.random.sample(given, min(3, len(given)))
        self.forged += 2
        return [
            message
            for kind in (MessageType.REDEEMED, MessageType.BLOCKED)
            for message in STRANGER.messages(
                [Statement(kind, CAMPAIGN, each, iso(self.now)) for each in some]
            )
        ]

    # The end

    def outcomes(self) -> dict[str, tuple[str, str]]:
        """Of each ref its market and outcome in the last phase."""
        lines = artefact(self.runtime, "result.txt", self.rounds + 1).decode().splitlines()
        return {ref: (market, outcome) for ref, market, _, outcome in (line.split("|") for line in lines)}

    def unproven(self, refs: Iterable[str]) -> Iterator[str]:
        """Which of these receipts do not hold, but for witnesses, which a test has none of."""
        source = campaign_source(self.runtime, CAMPAIGN, self.folder)
        for ref in refs:
            checked = check_receipt(canonical_bytes(source.receipt(ref)), TRUST)
            open_ = [step.name for step in checked.checks if step.state is not State.PASSED]
            if open_ != ["witnesses"]:
                yield f"the receipt of {ref} does not hold: {', '.join(open_)}"

    def check(self) -> Iterator[str]:
        """What is wrong with the seats and messages."""
        codes = list(self.runtime.database["codes"].find({"status": {"$in": ["ASSIGNED", "REDEEMED"]}}))
        outcomes = self.outcomes()
        usable = Counter(each["marketId"] for each in codes if not each.get("blocked"))
        for market, seats in self.capacities.items():
            winners = sum(each == (market, "WINNER") for each in outcomes.values())
            if winners > seats or usable[market] > seats:
                yield f"{market}: {winners} winners and {usable[market]} codes that hold, of {seats} seats"
        for each in codes:
            won = outcomes[each["ref"]] == (each["marketId"], "WINNER")
            if each["status"] == "REDEEMED" and (not won or each.get("passedOn")):
                yield f"{each['ref']} redeemed a code and lost the seat"
            if not won and not each.get("blocked"):
                yield f"{each['ref']} has no seat any more, and a code that holds"
            if self.issuer.redeems(each["digest"]) and each.get("blocked"):
                yield f"{each['ref']} redeemed a code that a stranger could block"
        if twice := [key for key, number in self.mails.items() if number > 1]:
            yield f"{len(twice)} messages went out twice"
        if twice := [ref for ref, number in self.wins.items() if number > 1]:
            yield f"{len(twice)} fans were notified twice that they won"
        if max(self.idle) > HOUR:
            yield f"a seat was idle for {max(self.idle):.0f} s"


def _code(market: str, position: int) -> dict[str, object]:
    return {
        "_id": f"{market}-{position:06d}",
        "campaignId": CAMPAIGN,
        "marketId": market,
        "position": position,
        "status": "AVAILABLE",
        # Not signed, which takes half a millisecond: what is played here does not prove codes.
        "salt": hashlib.sha256(f"{market}-{position}".encode()).hexdigest(),
    }
