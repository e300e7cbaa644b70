"""The draw of a play: a campaign with thirty entrants, from its creation to the last message, checked by an oracle.

The oracle is the draw in plain Python, which shares no step with the engine of the product.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from fairdraw.maths.plain import Drawn
from regworkers_core.domain import timestamps
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.domain.selection import StepState
from regworkers_core.eligibility.judging import judge_campaign
from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.settled import settled
from regworkers_core.selection.campaigns import amending, registry
from regworkers_core.selection.draw_run import DrawOptions, DrawRun
from tests.fairdraw.maths import oracle
from tests.selection.draw.beacons import signature_of
from tests.simulation.faults import CLOSING_SECONDS
from tests.simulation.passing import ROUNDS, RULES
from tests.simulation.platform import DAY, attributes, open_campaign, order_of, stamp
from tests.simulation.scheduler import EPOCH, Process

if TYPE_CHECKING:
    from tests.simulation.play import Play

CAMPAIGN = "summer"
ENTRANTS = 30
MARKETS: list[dict[str, Any]] = [
    {"marketId": "berlin", "name": "Berlin", "capacity": 6, "reserves": [{"segment": "loyal", "seats": 2}]},
    {"marketId": "paris", "name": "Paris", "capacity": 5},
]
_SEATS, _CORRECTIONS = 5, 2
_ENTRY_SECONDS = 10.0
_MOST_RUNS = 60
# One in this number of entrants comes with one who leaves again, and another one has moved.
_TRANSIENT, _STAY_SECONDS = 7, 2.0
# Of a run of the job, for the beacon; and by how much the last runs before a round come early.
_PATIENCE_SECONDS, _EARLY_SECONDS = 60.0, 40.0
_NOTIFIED = {
    "WINNER": "winner",
    "WAITLIST": "waitlisted",
    "UNSELECTED": "unselected",
    "HOUSEHOLD_LIMIT": "unselected",
}


def _seats(campaign: Mapping[str, Any]) -> int:
    """Of the market that gets more."""
    return next(int(each["capacity"]) for each in campaign["markets"] if each["marketId"] == "paris")


class Drawing:
    def __init__(self, play: Play) -> None:
        self._play, self._world = play, play.world
        self._runtime = play.platform.runtime
        self._random = play.scheduler.random
        self._entrants = [self._entrant(number) for number in range(ENTRANTS)]
        self.published = self._has_left = False
        self.broken: list[str] = []
        # How many corrections are made.
        self._corrected = 0
        # By step of the draw: what happens to its process there, once.
        self.at_step: dict[str, Callable[[Process], None]] = {}
        # For how many seconds no run begins.
        self.pause = 0.0
        # By ref, key and type of each message to it.
        self._mailed: dict[str, set[tuple[str, str]]] = {}
        # Since the epoch: when the round of the beacon is due for which the draw waits.
        self.due = 0.0

    @property
    def waits(self) -> float:
        """For how many seconds."""
        left = self.due - self._play.scheduler.time
        # What is less is lost in the sum, and would be waited for without an end.
        return left if left > 0.001 else 0.0

    def _entrant(self, number: int) -> dict[str, Any]:
        at = stamp(EPOCH + self._random.uniform(0.5, _ENTRY_SECONDS))
        return {
            "PK": f"CAMPAIGN#{CAMPAIGN}",
            "SK": f"ENTRY#f{number}",
            "entityType": "ENTRY",
            "campaignId": CAMPAIGN,
            "entryId": f"f{number}",
            "ref": hashlib.sha256(f"ref-{number}".encode()).hexdigest()[:32],
            "email": f"entrant{number}@example.com",
            "firstName": "Ada",
            "lastName": f"Fan {number}",
            "unit": f"house-{number % 24}",
            "weight": 1 + number % 3,
            "segments": ["loyal"] if number % 3 == 0 else [],
            "markets": ["berlin", "paris"] if number % 2 else ["paris", "berlin"][: 1 + number % 4 // 2],
            "version": 1,
            "createdAt": at,
            "updatedAt": at,
            "needsReplication": True,
        }

    def prepare(self) -> None:
        passing = self._play.plan.passing
        rules = RULES if passing else {}
        open_campaign(self._runtime, CAMPAIGN, EPOCH - 2 * DAY, EPOCH + CLOSING_SECONDS, MARKETS, rules)
        for market in MARKETS:
            self._runtime.database["codes"].insert_many(
                [
                    {
                        "_id": f"{market['marketId']}-{position:04d}",
                        "campaignId": CAMPAIGN,
                        "marketId": market["marketId"],
                        "position": position,
                        "status": "AVAILABLE",
                    }
                    for position in range(1, (market["capacity"] + _CORRECTIONS) * (1 + ROUNDS * passing) + 3)
                ]
            )

    def _advance(self, status: CampaignStatus) -> None:
        registry.advance(self._runtime, CAMPAIGN, status, reason="play", run_id="play")

    def enter(self) -> None:
        """The entrants, one by one. Some take their entry back at once, some of these come again, and some move."""
        scheduler = self._play.scheduler
        for number, item in enumerate(sorted(self._entrants, key=lambda each: str(each["createdAt"]))):
            at = EPOCH + float(item["createdAt"][17:23])
            scheduler.sleep(max(0.0, at - scheduler.time))
            if number % _TRANSIENT == 1:
                gone = {**item, "SK": f"{item['SK']}-gone", "entryId": f"{item['entryId']}-gone"}
                self._put(gone)
                scheduler.start(lambda gone=gone: self._leave(gone, _STAY_SECONDS), "one who leaves")
            if number % _TRANSIENT == 2:
                self._put({**item, "unit": "elsewhere", "version": 0})
                scheduler.sleep(_STAY_SECONDS / 10)
            self._put(item)

    def _put(self, item: Mapping[str, Any]) -> None:
        platform = self._play.platform
        order = order_of(item)
        platform.live.setdefault(f"{CAMPAIGN}:{item['entryId']}", set()).add(order)
        self._runtime.dynamodb.put_item(TableName=platform.names.demand_table, Item=attributes(item))

    def _leave(self, item: Mapping[str, Any], after: float = 0.0) -> None:
        self._play.scheduler.sleep(after)
        platform, key = self._play.platform, {name: item[name] for name in ("PK", "SK")}
        platform.gone.setdefault(f"{CAMPAIGN}:{item['entryId']}", set()).add(order_of(item))
        self._runtime.dynamodb.delete_item(TableName=platform.names.demand_table, Key=attributes(key))

    def amend(self) -> None:
        """Add seats to the open campaign, twice, in processes that may die: an operator repeats what failed."""
        scheduler = self._play.scheduler
        self._world.monitors.setdefault(("mongo", "update_one"), []).append(self._written)
        for number in range(_CORRECTIONS):
            scheduler.sleep(self._random.uniform(1.0, 4.0))
            for attempt in range(_MOST_RUNS):
                process = self._play.begin("draw", f"amend.{number}.{attempt}")
                run = partial(self._amend, process, _SEATS + number + 1)
                scheduler.spawn(run, process.name, process).join()
                self._play.end("draw", process)
                if self._corrected > number:
                    break
                scheduler.sleep(self._random.uniform(0.5, 3.0))

    def _amend(self, process: Process, seats: int) -> None:
        def more(campaign: Campaign) -> Mapping[str, Any]:
            markets = [dict(each) for each in campaign.definition["markets"]]
            markets[1]["capacity"] = seats
            return {"campaignId": CAMPAIGN, **campaign.definition, "markets": markets}

        try:
            done = amending.amend(
                self._world.runtime(process), CAMPAIGN, more, reason="more fans came", run_id=process.name
            )
        except (Failure, UsageError) as error:
            self._play.tell(f"{process.name} failed: {error}")
            self._world.reached["amendment failed"] += 1
            return
        self._world.reached["amended"] += bool(done.plan.changes)
        # One who finds nothing to change follows one whose answer was lost.
        self._corrected += 1

    def _written(self, process: Process, _request: Any) -> None:
        """No entry may count on seats that the public log lacks."""
        documents = [each for each in self._world.documents("campaigns") if each["_id"] == CAMPAIGN]
        record = self._record()
        if documents and record and _seats(documents[0]) > _seats(json.loads(record[-1])):
            self.broken.append(f"{process.name} added seats that the log does not have")

    def _record(self) -> list[bytes]:
        """The files about the campaign, in order."""
        names = ["opened.json", *(f"amended-{number}.json" for number in range(1, _MOST_RUNS))]
        found = (self._world.bucket.current(f"draws/{CAMPAIGN}/{name}") for name in names)
        return [each.data for each in takewhile(bool, found) if each is not None and each.data]

    def run(self) -> None:
        """Close the campaign and draw it, in processes that may die, until it is published."""
        play, scheduler = self._play, self._play.scheduler
        scheduler.sleep(max(0.0, CLOSING_SECONDS + 1 - self._world.elapsed))
        while play.rewound or self._corrected < _CORRECTIONS or not self._closed():
            scheduler.sleep(1.0)
        for number in range(_MOST_RUNS):
            process = play.begin("draw", f"draw.{number}")
            scheduler.spawn(partial(self.draw, process), process.name, process).join()
            play.end("draw", process)
            if self.published:
                return
            scheduler.sleep(self._random.uniform(1.0, 8.0) + self.pause)
            self.pause = 0.0
            if self.waits > _EARLY_SECONDS:
                scheduler.sleep(self.waits - self._random.uniform(0.0, _EARLY_SECONDS))

    def _closed(self) -> bool:
        try:
            self._advance(CampaignStatus.CLOSED)
        except Failure:
            return False
        return True

    def draw(self, process: Process, phase: int | None = None) -> None:
        """As far as this process comes with the phase, by default the latest."""
        runtime = self._world.runtime(process)
        stop = StopSignal()
        run = DrawRun(
            runtime,
            CAMPAIGN,
            DrawOptions(
                run_id=process.name,
                settled=partial(settled, runtime),
                judge=partial(judge_campaign, runtime),
                stop=stop,
                on_step=lambda step: self.at_step.pop(step, lambda _process: None)(process),
                patience_seconds=_PATIENCE_SECONDS,
                phase=phase,
            ),
        )
        try:
            for step in run.steps(unasked=True):
                self._play.tell(f"{process.name}: {step.name} {step.state} {dict(step.facts)}")
                self._world.reached[f"draw {step.name} {step.state}"] += 1
                if step.name == "freeze" and not self._has_left:
                    # Who leaves now is in the draw all the same.
                    self._has_left = True
                    self._leave(self._entrants[0])
                self.published = step.name == "publish" and step.state in ("done", StepState.UNCHANGED)
                if step.state == "waiting":
                    self.due = timestamps.seconds(step.facts["dueAt"])
        except Failure as failure:
            # The job fails, and its retry or an operator runs it again.
            self._play.tell(f"{process.name} failed: {failure}")
            self._world.reached[f"draw failed {type(failure).__name__}"] += 1
        except UsageError as error:
            if "behind the beacon" not in str(error):
                raise
            self._world.reached["draw with a clock behind the beacon"] += 1

    # The end

    def differences(self) -> list[str]:
        """What is still to be done."""
        if not self.published:
            return [f"the draw of {CAMPAIGN} is not published"]
        markets = self._phases[-1].get("markets", {})
        found = [
            f"the messages of market {name}, which is {entry.get('status')}, are not delivered"
            for name, entry in markets.items()
            if "deliveredAt" not in entry and not self._is_early()
        ]
        campaign = next(each for each in self._world.documents("campaigns") if each["_id"] == CAMPAIGN)
        if campaign["status"] != "COMPLETED":
            found.append(f"{CAMPAIGN} is {campaign['status']}: {markets}")
        return found

    @property
    def _phases(self) -> list[dict[str, Any]]:
        (draw,) = self._world.documents("draws")
        return [draw["phases"][number] for number in sorted(draw["phases"])]

    def _is_early(self) -> bool:
        """Whether messages still wait for their time: that of the draw's own clock, which may be ahead."""
        return self._phases[-1].get("notBefore", "") > stamp(self._play.scheduler.time)

    def check(self) -> Iterator[str]:
        """The result is the oracle's; one code a winner, and each entrant got one message, the right one."""
        self._world.reached["drawn"] += 1
        yield from self.broken
        yield from self._amendments()
        manifest, seed = (self._artefact(name) for name in ("manifest.json", "seed.json"))
        named, terms = json.loads(seed), json.loads(manifest)
        source = terms["seedSource"]
        if self._play.plan.beacon:
            signature = signature_of(source["round"])
            if named["randomness"] != hashlib.sha256(bytes.fromhex(signature)).hexdigest():
                yield f"the seed is not that of round {source['round']}: {named}"
        origin = source["chain"], str(source["round"])
        text = "|".join(("vfseed2", hashlib.sha256(manifest).hexdigest(), *origin, named["randomness"]))
        if hashlib.sha256(text.encode()).hexdigest() != named["seed"]:
            yield "the seed is not derived from the manifest"
        leaves = [
            (
                item["ref"],
                self._unit(item["unit"]),
                item["weight"],
                tuple(sorted(item["segments"])),
                tuple(item["markets"]),
            )
            for item in self._entrants
        ]
        drawn: list[Drawn] = []
        for number in range(1, len(self._phases) + 1):
            markets = [
                (
                    market["marketId"],
                    market["capacity"] + _CORRECTIONS * (market["marketId"] == "paris"),
                    [(each["segment"], each["seats"]) for each in market.get("reserves", []) if number == 1],
                )
                for market in MARKETS
            ]
            drawn.append(
                oracle.draw(
                    leaves,
                    markets,
                    named["seed"],
                    CAMPAIGN,
                    wins_per_unit=terms["winsPerUnit"],
                    waitlist_size=terms["waitlistSize"],
                    strikes=self._lapsed(number),
                    previous=drawn[-1].outcomes if drawn else None,
                )
            )
            if (result := self._artefact("result.txt", number)) != drawn[-1].result:
                yield (
                    f"the result of phase {number} differs from the oracle's: {result.decode()} instead of"
                    f" {drawn[-1].result.decode()}"
                )
        yield from self._codes(drawn[-1])
        yield from self._messages(drawn)

    def _lapsed(self, phase: int) -> dict[str, str]:
        """Who lost a seat up to this phase, by the codes."""
        codes = self._world.documents("codes")
        return {each["ref"]: "UNCLAIMED" for each in codes if each.get("passedOn", phase + 1) <= phase}

    def _amendments(self) -> Iterator[str]:
        """Each correction is in the public log once, in its order, and the campaign is as the last one says."""
        (campaign,) = (each for each in self._world.documents("campaigns") if each["_id"] == CAMPAIGN)
        record = self._record()
        seats = [_seats(json.loads(each)) for each in record]
        if seats != [_SEATS + number for number in range(_CORRECTIONS + 1)] or seats[-1] != _seats(campaign):
            yield f"the log has {seats} seats, and the campaign {_seats(campaign)}"
        if [len(each["changes"]) for each in campaign.get("amendments", ())] != [1] * _CORRECTIONS:
            yield f"the campaign has the corrections {campaign.get('amendments')}"
        kinds = ["opened", *["amended"] * _CORRECTIONS]
        wanted = [*zip(kinds, (hashlib.sha256(each).hexdigest() for each in record), strict=False)]
        registering = self._play.registering
        seen = registering.followed(CAMPAIGN) if registering is not None else []
        if (logged := [each for each in seen if each[0] in kinds]) != wanted:
            yield f"the log has {logged} of {CAMPAIGN} instead of {wanted}"

    def _unit(self, stored: str) -> str:
        """The unit as it is published: under the campaign's key, which is in the secret with the code key."""
        key = bytes.fromhex(str(self._runtime.secrets.get(f"campaign-keys/{CAMPAIGN}")).partition(" ")[0])
        mac = hmac.digest(key, f"vfunit2|{CAMPAIGN}|{stored}".encode(), "sha256")
        return "u-" + urlsafe_b64encode(mac).decode().rstrip("=")

    def _artefact(self, name: str, phase: int = 1) -> bytes:
        return self._runtime.objects.get_bytes(f"draws/{CAMPAIGN}/phase-{phase}/{name}")

    def _codes(self, drawn: Drawn) -> Iterator[str]:
        winners = {ref: market for ref, (market, _, outcome) in drawn.outcomes.items() if outcome == "WINNER"}
        given: Counter[str] = Counter()
        for code in self._world.documents("codes"):
            if code["status"] == "AVAILABLE" or "passedOn" in code:
                continue
            given[code["ref"]] += 1
            if winners.get(code["ref"]) != code["marketId"]:
                yield f"code {code['_id']} is with {code['ref']}, who won {winners.get(code['ref'])}"
        for ref in winners:
            if given[ref] != 1:
                yield f"winner {ref} has {given[ref]} codes"
        selections = {each["ref"]: each for each in self._world.documents("selections")}
        if selections.keys() - self._lapsed(len(self._phases)).keys() != winners.keys():
            yield f"{len(selections)} selections of {len(winners)} winners"

    def mail(self) -> None:
        """The mailer takes what is on its queue, which keeps nothing for days."""
        queue = self._world.servers.queues.queues[self._play.platform.names.notification_queue]
        for message in queue.messages.values():
            for item in json.loads(message.body)["items"]:
                self._mailed.setdefault(item["ref"], set()).add((item["key"], item["type"]))

    def _messages(self, drawn: Sequence[Drawn]) -> Iterator[str]:
        """The mailer drops a second message with the same key, and no other."""
        self.mail()
        notified = self._mailed
        if self._is_early():
            self._world.reached["messages not due"] += 1
            for row in self._world.documents("outbox"):
                if row["status"] == "PENDING":
                    notified.setdefault(row["ref"], set()).add((row["_id"], row["type"]))
        for ref, (market, _, first) in drawn[0].outcomes.items():
            outcomes = [phase.outcomes[ref][2] for phase in drawn]
            # Who gets a seat that passed on gets another message, and who loses one gets none.
            wanted = sorted({_NOTIFIED[first], *(["winner"] if "WINNER" in outcomes else [])})
            messages = notified.pop(ref, set())
            if sorted(kind for _, kind in messages) != wanted:
                yield f"{ref} is {outcomes} {market}, and was notified {sorted(messages)}"
        for ref in notified:
            yield f"{ref} was notified, and did not take part"
