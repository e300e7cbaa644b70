"""What the drain `register` works on: the entries of each campaign that wait since they were saved.

One drain at a time reads, and appends to a tree under the lease of the campaign's draw. An entry waits until the tree,
the document and the event are done, so nothing else has to be remembered, and no clock matters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from fairdraw import scheduling
from fairdraw.errors import DrawError
from fairdraw.log.record import OpenTime
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseStatus
from regworkers_core.adapters.mongo.registrations import Registrant
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.timestamps import seconds
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.keys import read_keys
from regworkers_core.selection.campaigns.leading import Leader
from regworkers_core.selection.registrations.appending import Appender
from regworkers_core.selection.registrations.steps import NewLeaf, Published, Step
from regworkers_core.selection.registrations.tree import Memory, RegistrationFiles, RegistrationLog

log = structlog.get_logger(__name__)
LEASE = "registrations"
# A campaign that cannot be worked on is left alone for so long, and one whose time has not come.
FAILED_SECONDS, _AGAIN_SECONDS = 60.0, 5.0
# A tree whose size is not in the log yet is looked at so often, if no entry comes.
_SIZE_SECONDS = 30.0
# How long a receive waits for the round at work.
_BUSY_SECONDS = 0.5


def logging_campaigns(runtime: Runtime) -> list[Campaign]:
    """The campaigns that have a tree, by id."""
    return [
        each
        for each in runtime.campaigns.list()
        if each.logs_registrations and each.status is not CampaignStatus.DRAFT
    ]


def is_frozen(record: DrawRecord | None) -> bool:
    """Whether only the draw's freeze may append now: its entries are judged, and its manifest, which counts them, may
    still be replaced by another one with the same list. The seed ends that.
    """
    first = None if record is None or record.annulled else record.phases.get(1)
    return first is not None and "asOf" in first.fields and not first.reached(PhaseStatus.SEEDED)


def is_due(runtime: Runtime) -> bool:
    """Whether a drain could append or log something now: cheap calls, for sensors."""
    frozen = {record.campaign_id for record in runtime.draws.all() if is_frozen(record)}
    campaigns = [each for each in logging_campaigns(runtime) if each.campaign_id not in frozen]
    if any(runtime.registrations.waits(each.campaign_id) for each in campaigns):
        return True
    now = runtime.clock()
    return any(
        RegistrationFiles(runtime.objects, each.campaign_id).is_due(now, _open_time(each))
        for each in campaigns
        if _needs_sizes(each)
    )


def _needs_sizes(campaign: Campaign) -> bool:
    """Whether the sizes of its tree go into the log without a further registration: once the campaign itself is there,
    and until its draw is over.
    """
    return campaign.opened is not None and campaign.status is not CampaignStatus.COMPLETED


def _open_time(campaign: Campaign) -> OpenTime:
    times = (campaign.takes_entries_from, campaign.takes_entries_until)
    return OpenTime(*(seconds(at) or 0.0 for at in times))


@dataclass(slots=True, eq=False)
class Round:
    """What one bundle appends: the steps of a page of entries of one campaign."""

    campaign_id: str
    # That of its tree, finished.
    appender: Appender
    steps: list[Step]  # what its entries need
    # Those of the steps that the tree has now.
    appended: list[Step] = field(default_factory=list)

    @property
    def done(self) -> list[Registrant]:
        """Those of the entries that need nothing else."""
        return [each.registrant for each in self.appended if not _is_followed(each)]


def _is_followed(step: Step) -> bool:
    """Whether the entry may need another step after this one."""
    if isinstance(step, NewLeaf):
        return not step.is_new
    return step.registered is None and not step.registrant.is_removed


@dataclass(slots=True)
class _Reading:
    """When a campaign is looked at."""

    # Until when (epoch seconds) it is left alone.
    rest_until: float = 0.0
    # From when on (epoch seconds) the tree is looked at for its size alone; None: the log has it.
    size_at: float | None = 0.0
    # What is known of the tree since it was open.
    memory: Memory = field(default_factory=Memory)


class RegistrationSource:
    """An `engine.drain.Source[Round]`. Without the lease it hands out nothing and stays idle."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        owner: str,
        sleep: Callable[[float], object],
        on_step: OnStep = no_step,
        clock: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        self._runtime, self._on_step = runtime, on_step
        self._leader = Leader(runtime, LEASE, owner=owner, sleep=sleep, clock=clock)
        self._readings: dict[str, _Reading] = {}
        # It appends to the tree whose draw's lease is held; None before its last bundle is finished.
        self._appender: Appender | None = None
        # The campaign that was looked at last.
        self._last = ""
        # Whether the last receive waited for the lease of a draw, and whether it read entries.
        self._waits = self._has_read = False
        self._lock = scheduling.lock()
        self._in_flight = 0
        self._settled = scheduling.event()
        self._counts: Counter[str] = Counter()

    def receive(self) -> list[Round]:
        if not self._leads():
            return self._nothing()
        with self._lock:
            is_busy = self._in_flight > 0
            self._settled.clear()
        if is_busy:
            self._settled.wait(_BUSY_SECONDS)
            return []
        self._waits = self._has_read = False
        for campaign in self._in_turn():
            self._last = campaign.campaign_id
            made = self._round(campaign)
            if made is not None or self._has_read:
                self._leader.found_work()
                with self._lock:
                    self._in_flight += made is not None
                return [] if made is None else [made]
        self._close_tree()
        self._leader.free_draw()
        return self._nothing()

    def may_append(self) -> bool:
        """Return whether both leases are still held; the drain's threads ask right before they append."""
        return self._leader.holds()

    def _leads(self) -> bool:
        lease = self._leader.lease
        if lease is not None and not lease.lost:
            return True
        self._close_tree()
        # Another drain may go further meanwhile.
        self._readings = {}
        return self._leader.leads()

    def _nothing(self) -> list[Round]:
        self._leader.found_nothing()
        return []

    def _close_tree(self) -> None:
        self._appender = None

    # Campaigns

    def _in_turn(self) -> list[Campaign]:
        """All campaigns: first the one whose tree is open, then those behind the one that was looked at last."""
        campaigns = logging_campaigns(self._runtime)
        known = self._readings
        self._readings = {each.campaign_id: known.get(each.campaign_id) or _Reading() for each in campaigns}
        return sorted(campaigns, key=lambda each: (not self._is_open(each), each.campaign_id <= self._last))

    def _is_open(self, campaign: Campaign) -> bool:
        has_tree = self._appender is not None and not self._leader.kept_too_long
        return has_tree and self._leader.draw_of == campaign.campaign_id

    def _round(self, campaign: Campaign) -> Round | None:
        """The next round of a campaign, if it has one. Raises TransientFailure."""
        reading = self._readings[campaign.campaign_id]
        if reading.rest_until > self._runtime.clock():
            return None
        try:
            if self._is_open(campaign) or (
                self._has_work(campaign, reading) and self._open(campaign, reading)
            ):
                return self._next(campaign, reading)
        except (DrawError, UsageError) as error:
            self._close_tree()
            self.failed(campaign.campaign_id, error)
            reading.rest_until = self._runtime.clock() + FAILED_SECONDS
        except TransientFailure:
            self._close_tree()
            raise
        return None

    def failed(self, campaign_id: str, error: Exception) -> None:
        """Count and log why a campaign is left alone for a while; others continue."""
        with self._lock:
            self._counts["campaigns_failed"] += 1
        log.error("registrations not logged", campaignId=campaign_id, error=str(error))

    def _has_work(self, campaign: Campaign, reading: _Reading) -> bool:
        """Whether the lease of its draw is worth taking."""
        now = self._runtime.clock()
        is_unsized = reading.size_at is not None and reading.size_at <= now and _needs_sizes(campaign)
        return is_unsized or self._runtime.registrations.waits(campaign.campaign_id)

    def _open(self, campaign: Campaign, reading: _Reading) -> bool:
        """Take the lease and open the tree; False while that has to wait."""
        self._close_tree()
        campaign_id, draws = campaign.campaign_id, self._runtime.draws
        keys = read_keys(self._runtime, campaign)
        if keys is None or is_frozen(draws.light(campaign_id)):
            # A campaign that others opened gets its keys when it is logged.
            reading.rest_until = self._runtime.clock() + _AGAIN_SECONDS
            return False
        # A draw judges under its lease, so once it is ours, what was read without it may be old.
        if not self._leader.take_draw(campaign_id) or is_frozen(draws.light(campaign_id)):
            self._waits = True
            return False
        tree = RegistrationLog.open(self._runtime, campaign_id, self._on_step, reading.memory)
        appender = Appender(self._runtime, tree, keys.unit, self._on_step)
        limit = self._runtime.settings.registrations.batch_entries
        appender.finish(lambda: self._runtime.registrations.of_campaign(campaign_id, limit))
        self._appender = appender
        return True

    def _next(self, campaign: Campaign, reading: _Reading) -> Round | None:
        """Read a page of those of the open tree's campaign that wait; None if nothing of it is due."""
        appender = self._appender
        if appender is None:
            return None
        self._log_size(campaign, reading, appender.tree)
        registrations, limit = self._runtime.registrations, self._runtime.settings.registrations.batch_entries
        page = appender.placed(registrations.waiting(campaign.campaign_id, limit))
        found = [appender.needed(each, Published.of(each, appender.unit_key)) for each in page]
        registrations.done([each for each, step in zip(page, found, strict=True) if step is None])
        self._has_read = bool(page)
        steps = [step for step in found if step is not None]
        return Round(campaign.campaign_id, appender, steps) if steps else None

    def _log_size(self, campaign: Campaign, reading: _Reading, tree: RegistrationLog) -> None:
        """Log the size if it is due; not before the campaign itself is in the log."""
        if campaign.opened is None:
            return
        now = self._runtime.clock()
        tree.log_size(now, _open_time(campaign))
        reading.size_at = None if tree.is_logged else now + _SIZE_SECONDS

    # Settled rounds

    def acknowledge(self, done: Sequence[Round]) -> None:
        self._settle(len(done))

    def give_back(self, again: Sequence[tuple[Round, float]]) -> None:
        """Rounds that were not appended, or not to their end: the tree is opened and finished again."""
        now = self._runtime.clock()
        for each, wait_seconds in again:
            self._close_tree()
            if (reading := self._readings.get(each.campaign_id)) is not None:
                reading.rest_until = now + wait_seconds
        self._settle(len(again))

    def _settle(self, rounds: int) -> None:
        with self._lock:
            self._in_flight -= rounds
        if rounds:
            self._settled.set()

    def heartbeat(self) -> None:
        self._leader.renew()

    def may_idle(self) -> bool:
        """Return whether the drain may count as idle: not while it reads, not while it waits for a draw's step, and not
        for the lease of a drain that may be dead.
        """
        behind = self._leader.is_behind_another
        if behind is not None:
            return behind
        return not self._has_read and not self._waits

    def let_go(self) -> None:
        self._close_tree()
        self._leader.let_go()

    close = let_go

    def counts(self) -> Counter[str]:
        return self._counts
