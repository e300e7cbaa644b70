"""A campaign that logs its registrations, fans who come and go, and its tree as everybody can read it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fairdraw.log.tree import read_bundle
from fairdraw.maths.registration import RegistrationTree, registration_leaf
from regworkers_core.adapters.mongo.entry_documents import Write
from regworkers_core.adapters.mongo.registrations import Registrant
from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.domain.entry import Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.keys import ensure_keys
from regworkers_core.selection.registrations.source import RegistrationSource
from regworkers_core.selection.registrations.steps import Published
from regworkers_core.selection.registrations.tree import MOST_ENTRIES, RegistrationFiles
from regworkers_core.selection.registrations.work import RegisterWork
from tests.support.campaigns import advance_to, create

CAMPAIGN = "summer"
_MOST_TURNS = 200


def with_log(runtime: Runtime, **changes: Any) -> Runtime:
    """The same namespace with other settings of the drain."""
    settings = runtime.settings
    registrations = settings.registrations.model_copy(update=changes)
    return Runtime(settings.model_copy(update={"registrations": registrations}), clock=runtime.clock)


def opened(runtime: Runtime, campaign_id: str = CAMPAIGN) -> None:
    """An open campaign that logs registrations."""
    campaign = create(runtime, campaign_id, registration={"log": "on"})
    ensure_keys(runtime, campaign)
    advance_to(runtime, campaign_id, CampaignStatus.OPEN)


@dataclass
class Fans:
    """Those of one campaign, whose entries are saved as a save drain does."""

    runtime: Runtime
    campaign_id: str = CAMPAIGN
    # How many states each entry had.
    versions: dict[str, int] = field(default_factory=dict)
    # Seconds by which the clock of the worker that saves is ahead.
    skew: float = 0.0

    def save(self, *names: str, ref: str = "", unit: str | None = None) -> None:
        """Register, or change a registration."""
        self._write(names, ref, unit, live=True)

    def remove(self, *names: str) -> None:
        self._write(names, "", None, live=False)

    def erase(self, name: str) -> None:
        now = iso(self.runtime.clock())
        self.runtime.replica.erase(self.key(name), Order(), at=now, run_id="erase")

    def key(self, name: str) -> EntryKey:
        return EntryKey(self.campaign_id, name)

    def document(self, name: str) -> dict[str, Any]:
        found = self.runtime.database["entries"].find_one({"_id": self.key(name).document_id})
        return dict(found or {})

    def _write(self, names: tuple[str, ...], ref: str, unit: str | None, *, live: bool) -> None:
        now = iso(self.runtime.clock())
        writes = []
        for name in names:
            version = self.versions[name] = self.versions.get(name, 0) + 1
            order, key = Order(now, version, now), self.key(name)
            fields: dict[str, Any] = {
                "campaignId": self.campaign_id,
                "entryId": name,
                "email": f"{name}@example.com",
                "ref": ref or f"ref-{name}",
                **order.as_fields(),
            }
            fields |= {} if unit is None else {"unit": unit}
            writes.append(Write(key, order, fields if live else None, f"m-{name}-{version}"))
        saved_at = iso(self.runtime.clock() + self.skew)
        self.runtime.replica.apply(writes, at=saved_at, run_id="test")


@dataclass
class Holder:
    """A process that runs the drain, and may die at a step without another word."""

    runtime: Runtime
    on_step: OnStep = no_step
    # By its own clock, which only its sleep moves.
    seconds: float = 0.0
    source: RegistrationSource = field(init=False)
    work: RegisterWork = field(init=False)

    def __post_init__(self) -> None:
        self.source = RegistrationSource(
            self.runtime,
            owner=uuid.uuid4().hex,
            sleep=self._sleep,
            on_step=lambda step: self.on_step(step),
            clock=lambda: self.seconds,
        )
        self.work = RegisterWork(self.runtime, self.source)

    def turn(self) -> bool:
        """Receive once and do that; whether the drain would go on."""
        rounds = self.source.receive()
        if rounds:
            settlement = self.work(rounds)
            self.source.acknowledge(settlement.done)
            self.source.give_back([(each, 0.0) for each, _ in settlement.again])
        self.source.heartbeat()
        return bool(rounds) or not self.source.may_idle()

    def _sleep(self, _seconds: float) -> None:
        self.seconds += 1.0

    def run(self) -> None:
        """Until nothing is left to do, then leave."""
        for _ in range(_MOST_TURNS):
            if not self.turn():
                self.source.close()
                return
        raise AssertionError("it goes on for ever")


class Died(BaseException):
    """The process is gone at a step: nothing of it is cleaned up."""


def dying_at(step: str, *, after: int = 0) -> OnStep:
    """Die at the step, once it was passed that often."""
    passed = 0

    def on_step(now: str) -> None:
        nonlocal passed
        if now == step:
            passed += 1
            if passed > after:
                raise Died(step)

    return on_step


def bundles(runtime: Runtime, campaign_id: str = CAMPAIGN) -> Iterator[bytes]:
    """All entries that were decided, in order."""
    files, size = RegistrationFiles(runtime.objects, campaign_id), 0
    while (data := files.read(path := f"bundles/{size}")) is not None:
        entries = read_bundle(data, path, MOST_ENTRIES)
        yield from entries
        size += len(entries)


def tree(runtime: Runtime, campaign_id: str = CAMPAIGN) -> RegistrationTree:
    """The tree over them, verified; the checkpoint says the same."""
    made = RegistrationTree()
    for entry in bundles(runtime, campaign_id):
        made.add(entry)
    state = RegistrationFiles(runtime.objects, campaign_id).state()
    assert (state.size, state.root) == (made.size, made.root)
    assert (state.notices, state.withdrawn, state.erased) == (made.notices, made.withdrawn, made.erased)
    return made


def entries(runtime: Runtime, campaign_id: str = CAMPAIGN) -> list[Registrant]:
    return [each for page in runtime.registrations.of_campaign(campaign_id, 1000) for each in page]


def check(runtime: Runtime, campaign_id: str = CAMPAIGN) -> RegistrationTree:
    """Every live entry has one registration that counts, whose leaf opens; no other counts; nothing else is stored."""
    made = tree(runtime, campaign_id)
    unit_key = ensure_keys(runtime, runtime.campaigns.require_id(campaign_id)).unit
    counting = set()
    for registrant in entries(runtime, campaign_id):
        held = registrant.registered
        if registrant.is_removed:
            assert held is None, registrant
            continue
        assert held is not None and held.index is not None, registrant
        found = made.at(held.index)
        assert found is not None and found.ended is None
        ref, unit = Published.of(registrant, unit_key)
        published = ref if unit is None else unit
        leaf = registration_leaf(campaign_id, ref, published, held.at or "", held.salt or "")
        assert (held.unit, held.leaf) == (unit, leaf) and found.current == leaf
        counting.add(held.index)
    every = (made.at(index) for index in range(made.size))
    assert counting == {each.index for each in every if each is not None and each.ended is None}
    return made
