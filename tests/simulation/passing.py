"""The rounds of a play, after its draw: codes expire, their issuer says what became of them over a network that loses,
doubles, delays and forges, and seats pass on by runs that die between their steps.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from regworkers_core.domain.messages import MessageType
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.domain.redemption import Statement
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.queue import Outgoing
from regworkers_core.selection.codes.issuing import put_for_issuer
from regworkers_core.selection.draw.changes import open_phase
from regworkers_core.selection.draw.passing_on import RoundState, claim, round_of
from regworkers_local.issuer import Issuer, Known, read_export
from tests.simulation.scheduler import Process

if TYPE_CHECKING:
    from tests.simulation.play import Play

ROUNDS = 2
ISSUER, STRANGER = Issuer(bytes([7]) * 32, "k1", share=0.5), Issuer(bytes([9]) * 32, "k1")
# Of a campaign whose seats pass on.
RULES = {
    "codes": {"expireAfterHours": 48},
    "issuerKeys": [asdict(ISSUER.key)],
}
# Between two times at which the issuer states what is not known.
_AGAIN_SECONDS = 60.0
_MOST_PASSES, _MOST_RUNS = 40, 20
# Steps of a round at which its process may die.
_STEPS = (
    "draw.after_commit",
    "draw.after_manifest",
    "draw.after_seed",
    "draw.after_rank",
    "draw.after_confirm",
    "draw.after_plan",
    "draw.after_codes",
    "draw.after_publish",
)


class Passing:
    def __init__(self, play: Play, campaign_id: str) -> None:
        self._play, self._world, self.campaign_id = play, play.world, campaign_id
        self._runtime, self._random = play.platform.runtime, play.scheduler.random
        self._late: list[Outgoing] = []
        self._known: list[Known] = []
        # Up to which phase the issuer has said what became of each code.
        self._stated = 0
        self.broken: list[str] = []

    def run(self) -> None:
        """All rounds, or fewer if no seat lapses any more. Ends once nothing is left to do."""
        for number in range(1, ROUNDS + 1):
            self._play.await_agreement()
            self._await_the_end()
            for _ in range(_MOST_PASSES):
                self._state()
                if not self._open() and self._watermark() >= self._end:
                    break
                self._play.scheduler.sleep(_AGAIN_SECONDS)
            else:
                self.broken.append(f"round {number}: {len(self._open())} codes are not settled")
            self._stated = number
            if self._decision() is not RoundState.DUE:
                self._world.reached["no seat lapsed"] += 1
                return
            self._round(number)

    def _decision(self) -> RoundState:
        campaign = self._runtime.campaigns.require_id(self.campaign_id)
        return round_of(self._runtime, campaign, asked=True).state

    def _await_the_end(self) -> None:
        """Until the codes that were given last have expired. Drains rest meanwhile, as sensors start none."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "codes.csv"
            put_for_issuer(self._runtime, self._runtime.campaigns.require_id(self.campaign_id), path)
            self._known = read_export(path)
        self._end = max(each.expires_at for each in self._known)
        self._play.rest_until(seconds(self._end) or 0.0)

    def _watermark(self) -> str:
        record = self._runtime.draws.light(self.campaign_id)
        return record.complete_to if record else ""

    def _open(self) -> list[Known]:
        """What the issuer got no answer for: codes of which neither fact is recorded."""
        open_ = {
            each.get("digest")
            for each in self._world.documents("codes")
            if each["status"] == "ASSIGNED" and "blockedAt" not in each
        }
        return [each for each in self._known if each.digest in open_]

    # The issuer and its network

    def _state(self) -> None:
        now = self._play.scheduler.time
        *facts, watermark = ISSUER.statements(self.campaign_id, self._open(), now)
        sent, self._late = self._late, []
        stated = [message for fact in facts for message in ISSUER.messages([fact])]
        if not sent and all(each.kind is not MessageType.REDEEMED for each in facts):
            # None that counts is on the way.
            stated += ISSUER.messages([watermark])
        for message in stated:
            match int(self._random.random() * 10):
                case 0:
                    self._world.reached["statement lost"] += 1
                case 1:
                    self._late.append(message)
                case 2:
                    sent += [message, message]
                case 3:
                    sent += [message, *self._forged(iso(now))]
                case _:
                    sent.append(message)
        self._random.shuffle(sent)
        queue = self._runtime.queue(self._runtime.names.redemption_queue)
        for first in range(0, len(sent), 10):
            assert not queue.send(sent[first : first + 10])
        self._world.arrived()
        if self._random.random() < 0.3:
            self._play.scheduler.sleep(self._random.uniform(0.0, 3.0))
            self._play.kill_one("redeem")

    def _forged(self, at: str) -> Iterator[Outgoing]:
        """A stranger redeems what is to lapse, and blocks what was used."""
        digest = self._random.choice(self._known).digest
        self._world.reached["statement forged"] += 2
        for kind in (MessageType.REDEEMED, MessageType.BLOCKED):
            yield from STRANGER.messages([Statement(kind, self.campaign_id, digest, at)])

    # A round

    def _round(self, number: int) -> None:
        play, drawing = self._play, self._play.drawing
        assert drawing is not None
        drawing.published = False
        drawing.at_step = dict.fromkeys(self._random.sample(_STEPS, 2), play.scheduler.kill)
        for again in range(_MOST_RUNS):
            process = play.begin("draw", f"round-{number}.{again}")
            play.scheduler.spawn(partial(self._draw, number, process), process.name, process).join()
            play.end("draw", process)
            if drawing.published:
                self._world.reached["rounds"] += 1
                return
            play.scheduler.sleep(self._random.uniform(1.0, 20.0))
        self.broken.append(f"round {number} is not published")

    def _draw(self, number: int, process: Process) -> None:
        """As `pass_on` does, and once the round is confirmed, as the sensor that resumes draws."""
        runtime, drawing = self._world.runtime(process), self._play.drawing
        assert drawing is not None
        try:
            record = runtime.draws.light(self.campaign_id)
            assert record is not None
            phase = record.latest.phase
            if record.latest.round < number or not record.latest.confirmed:
                terms = claim(runtime, runtime.campaigns.require_id(self.campaign_id))
                self._may_die(process)
                phase = open_phase(runtime, self.campaign_id, terms, run_id=process.name)
                self._may_die(process)
        except (Failure, UsageError) as failure:
            self._play.tell(f"{process.name} failed: {failure}")
            return
        drawing.draw(process, phase)

    def _may_die(self, process: Process) -> None:
        if self._random.random() < 0.3:
            self._play.scheduler.kill(process)

    # The end

    def check(self) -> Iterator[str]:
        """No seat has two codes that hold, and what became of each code is what its issuer said."""
        yield from self.broken
        held = Counter[str]()
        for code in self._world.documents("codes"):
            if code["status"] == "AVAILABLE":
                continue
            name, redeems = code["_id"], ISSUER.redeems(code["digest"])
            held[code["marketId"]] += "blockedAt" not in code
            if code["phase"] <= self._stated and redeems != (code["status"] == "REDEEMED"):
                yield f"code {name} is {code['status']}, and its issuer says redeemed: {redeems}"
            if "passedOn" in code and (redeems or "blockedAt" not in code):
                yield f"the seat of {name} passed on, and its code holds"
            self._world.reached["seats passed on"] += "passedOn" in code
        (campaign,) = (each for each in self._world.documents("campaigns") if each["_id"] == self.campaign_id)
        for market in campaign["markets"]:
            if held[market["marketId"]] > market["capacity"]:
                yield f"{market['marketId']} has {held[market['marketId']]} codes that hold"
