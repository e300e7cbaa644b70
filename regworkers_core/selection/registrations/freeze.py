"""The registrations at a draw: the tree catches up with what is judged, and each registration gets its class.

A draw holds the lease under which the drain `register` appends, so it appends here itself: before the judgement, so
that nothing that is judged has to be registered under the state of a former life; and before the manifest, so that each
leaf of the draw is in the tree. A notice about an entry of the pool waits until the draw has its seed, after which no
manifest takes the place of another: the drain appends it then.

Every pass over the entries is repeated until there is nothing left to do, so a run that was killed is resumed by
another pass. A registration that no entry has after that is withdrawn: its entry was lost, or got another one, when a
backup of MongoDB was restored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from fairdraw.errors import DrawError
from fairdraw.large.engine import Engine
from fairdraw.maths.files import MANIFEST
from fairdraw.maths.manifest import Registrations
from fairdraw.maths.registration import RegistrationClass, registration_leaf
from regworkers_core.adapters.files import in_batches
from regworkers_core.adapters.judged_entries import EXCLUSIONS, POOL, Tell
from regworkers_core.adapters.mongo.draws import DrawRecord
from regworkers_core.adapters.mongo.registrations import Registered, Registrant
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.selection import pipeline_key
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import OnStep
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.keys import ensure_keys
from regworkers_core.selection.campaigns.opening import recorded
from regworkers_core.selection.draw import freezing
from regworkers_core.selection.draw.held import Workbench, own_prefix
from regworkers_core.selection.registrations.appending import Appender, new_salt
from regworkers_core.selection.registrations.steps import NewLeaf, Published, Step
from regworkers_core.selection.registrations.tree import MOST_ENTRIES, RegistrationLog

# The class of each registration at the freeze, by its index in the tree; without ids, which an erasure would miss.
CLASSES = "registrations.parquet"
# The indexes of those that were withdrawn because no entry had them.
_LOST = "lost-registrations.json"
_TEXT: pa.DataType = pa.string()
CLASS_SCHEMA = pa.schema({"index": pa.int64(), "class": _TEXT, "reason": _TEXT})
# Why an entry that was saved after the judgement is not in the draw.
LATE = "LATE"
_ROWS = 20_000
# The entries that were judged, in the order of the replica; `reason` is null for those of the pool.
_JUDGED = """
SELECT entry_id, ref, nullif(unit, ref) AS unit, created_at, NULL AS reason FROM read_parquet($pool)
UNION ALL SELECT entry_id, ref, NULL, NULL, reason FROM read_parquet($exclusions) ORDER BY entry_id
"""


class Judged(NamedTuple):
    """An entry as it was judged."""

    entry_id: str
    ref: str | None  # None or empty: it has none, or no valid one
    unit: str | None  # the published one; None: it has none, or is not in the pool
    created_at: str | None
    reason: str | None  # the primary one; None: it is in the pool

    @property
    def is_drawn(self) -> bool:
        return self.reason is None


class Frozen(NamedTuple):
    """The registrations that a draw answers for."""

    registrations: Registrations  # as the manifest has them
    file: Mapping[str, str]  # `{key, sha256}` of the file of classes
    lost: int  # registrations that were withdrawn because no entry had them any more


class Freezing:
    """Brings the tree of one campaign up to date, under the lease of its draw.

    Every method raises TransientFailure when a store does not answer, DrawError for a damaged tree, and as
    `ensure_keys`.
    """

    @classmethod
    def of(cls, runtime: Runtime, campaign: Campaign, *, on_step: OnStep, tell: Tell) -> Freezing | None:
        """None for a campaign that promised no log of its registrations, by its record in the public log."""
        record = recorded(runtime.objects, campaign.campaign_id)
        logs = bool(record) and record[-1].registration
        return cls(runtime, campaign, on_step=on_step, tell=tell) if logs else None

    def __init__(self, runtime: Runtime, campaign: Campaign, *, on_step: OnStep, tell: Tell) -> None:
        self._runtime, self._campaign_id, self._tell = runtime, campaign.campaign_id, tell
        self._unit_key = ensure_keys(runtime, campaign).unit
        self._tree = RegistrationLog.open(runtime, campaign.campaign_id, on_step)
        self._appender = Appender(runtime, self._tree, self._unit_key, on_step)
        self._appender.finish(lambda: runtime.registrations.of_campaign(campaign.campaign_id, _ROWS))

    def catch_up(self) -> None:
        """Append what the entries need as they are now."""
        while sum(self._append(map(self._as_saved, page)) for page in self._pages()):
            pass

    def freeze(self, record: DrawRecord, bench: Workbench, engine: Engine, token: int) -> Frozen:
        """Append what the frozen pool needs, decide the leaf of that size in the public log, store the class of each
        registration, and count. Raises DrawError for registrations that do not add up.
        """
        paths = {name: freezing.fetch(bench, record, name, bench.root / name) for name in (POOL, EXCLUSIONS)}
        while (drawn := self._pass(_judged(paths, engine), bench.root / CLASSES)) is None:
            pass
        lost = self._withdraw_lost()
        state, count = self._tree.state, record.phases[1].freeze["count"]
        excluded = state.size - state.notices - count - state.withdrawn - state.erased
        if drawn != count or excluded < 0:
            raise DrawError(
                MANIFEST,
                f"{state.size} entries of the tree of registrations, {state.notices} of them notices,"
                f" {state.withdrawn} withdrawn and {state.erased} erased; {drawn} of the {count} leaves of the draw are"
                " in it: find out who changed the tree or the entries",
            )
        self._tree.log_now()
        key = pipeline_key(self._campaign_id, 1, f"{own_prefix('registrations', token)}/{CLASSES}")
        stored = {"key": key, "sha256": bench.put(key, bench.root / CLASSES)}
        return Frozen(
            Registrations(
                erased=state.erased,
                excluded=excluded,
                notices=state.notices,
                root=state.root,
                size=state.size,
                withdrawn=state.withdrawn,
            ),
            stored,
            lost,
        )

    def _withdraw_lost(self) -> int:
        """Withdraw the registrations that no entry had in the last pass. Returns how many the freeze of this draw has
        withdrawn, also in a run that died.
        """
        lost = [index for index, is_held in enumerate(self._held) if not is_held and self._tree.counts(index)]
        key = pipeline_key(self._campaign_id, 1, _LOST)
        before = self._runtime.objects.get_tagged(key)
        noted: set[int] = set() if before is None else {*orjson.loads(before.data)}
        if not noted.issuperset(lost):
            noted.update(lost)
            self._runtime.objects.put_bytes(key, orjson.dumps(sorted(noted)))
        self._appender.withdraw(lost)
        return len(noted)

    def _pass(self, judged: Iterator[Judged], path: Path) -> int | None:
        """The number of leaves of the draw that the tree has, with the classes in `path`; None if anything had to be
        appended, so that another pass is needed.
        """
        merged, done, drawn = _Merged(judged), True, 0
        self._held = bytearray(self._tree.size)
        with pq.ParquetWriter(path, CLASS_SCHEMA, compression="zstd") as writer:
            for page in self._pages():
                pairs = [(each, merged.of(each)) for each in page]
                done = not self._append([self._as_judged(*pair) for pair in pairs]) and done
                classed = [found for pair in pairs if (found := _class_of(*pair))]
                drawn += sum(each["class"] == RegistrationClass.DRAWN for each in classed)
                for each in classed:
                    self._held[each["index"]] = True
                writer.write_table(pa.Table.from_pylist(classed, schema=CLASS_SCHEMA))
        if missing := merged.skipped + sum(each.is_drawn for each in merged.rest()):
            raise TransientFailure(
                "mongo",
                f"{missing} entries of the pool of {self._campaign_id} have no document: `regworkers reconcile "
                f"{self._campaign_id} --repair` brings them back",
            )
        return drawn if done else None

    def _pages(self) -> Iterator[list[Registrant]]:
        done = 0
        for page in self._runtime.registrations.of_campaign(self._campaign_id, _ROWS):
            yield self._appender.placed(page)
            done += len(page)
            self._tell(f"{done:,} registrations compared with the tree")

    def _append(self, steps: Iterable[Step | None]) -> bool:
        """Whether anything was due."""
        due = [step for step in steps if step is not None]
        for some in in_batches(due, MOST_ENTRIES):
            self._appender.append(some)
        return bool(due)

    def _as_saved(self, registrant: Registrant) -> Step | None:
        return self._appender.needed(registrant, Published.of(registrant, self._unit_key))

    def _as_judged(self, registrant: Registrant, judged: Judged | None) -> Step | None:
        if judged is None or not judged.is_drawn:
            return self._as_saved(registrant)
        published = Published(judged.ref or "", judged.unit)
        if not registrant.is_removed and registrant.order.created_at == judged.created_at:
            return self._appender.needed(registrant, published)
        # Its life ended since it was judged. The notice of that is the drain's, after the seed.
        stored = registrant.registered
        if stored is None:
            stored = Registered(self._without_salt(published))
        return self._appender.over(registrant) if stored.index is not None else NewLeaf(registrant, stored)

    def _without_salt(self, published: Published) -> str:
        """The leaf of an entry that was judged and removed before it was registered: its salt is kept nowhere."""
        ref, unit = published
        at = iso(self._runtime.clock())
        return registration_leaf(self._campaign_id, ref, unit or ref, at, new_salt())


class _Merged:
    """The judged entries beside the documents, both in the order of their ids."""

    def __init__(self, judged: Iterator[Judged]) -> None:
        self._judged, self._next = judged, next(judged, None)
        # Entries of the pool without a document.
        self.skipped = 0

    def of(self, registrant: Registrant) -> Judged | None:
        """The judged entry of a document; documents come in order."""
        entry_id = registrant.key.entry_id
        while self._next is not None and self._next.entry_id < entry_id:
            self.skipped += self._next.is_drawn
            self._next = next(self._judged, None)
        if self._next is None or self._next.entry_id != entry_id:
            return None
        found, self._next = self._next, next(self._judged, None)
        return found

    def rest(self) -> Iterator[Judged]:
        return chain([] if self._next is None else [self._next], self._judged)


def _judged(paths: Mapping[str, Path], engine: Engine) -> Iterator[Judged]:
    with engine.connection() as connection:
        values = {"pool": str(paths[POOL]), "exclusions": str(paths[EXCLUSIONS])}
        reader: Any = connection.sql(_JUDGED, params=values).to_arrow_reader(_ROWS)
        for batch in reader:
            yield from map(Judged._make, zip(*(each.to_pylist() for each in batch.columns), strict=True))


def _class_of(registrant: Registrant, judged: Judged | None) -> dict[str, Any] | None:
    """The row of a registration; None for an entry that has none."""
    stored = registrant.registered
    if stored is None or stored.index is None:
        return None
    if judged is not None and judged.is_drawn:
        return {"index": stored.index, "class": RegistrationClass.DRAWN, "reason": None}
    reason = LATE if judged is None else judged.reason
    return {"index": stored.index, "class": RegistrationClass.EXCLUDED, "reason": reason}
