"""Strikes before the commit: handed in at any time, also while fans still register, and kept for the draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from regworkers_core.adapters.mongo.draws import DrawRecord
from regworkers_core.domain.reasons import RequestError
from regworkers_core.selection.draw import freezing
from regworkers_core.selection.draw.artefacts import Workbench
from regworkers_core.selection.draw.fencing import draw_lease
from regworkers_core.selection.draw.held import HeldDraw
from regworkers_core.selection.draw.opening import refuse_late_strikes
from regworkers_core.selection.draw.pool import POOL
from regworkers_core.selection.draw.terms import Terms, merged, require_room


class Striking(HeldDraw):
    """The strikes of phase 1, as long as no manifest names them."""

    def strike(self, strikes: Sequence[tuple[str, str]], *, dry_run: bool) -> dict[str, Any]:
        """Let these refs, and no others, take no place; `strikes` are pairs of ref and reason. Returns how many there
        are, and how many there were `before`.

        Raises RequestError for a malformed one and once a manifest is committed without them, DrawBusy while another
        run works on the draw, TransientFailure when a store cannot answer.
        """
        wanted = Terms.of(self._campaign(), strikes)
        require_room([wanted])
        terms = wanted.as_fields()
        before = self._before(strikes)
        if not dry_run:
            with draw_lease(self._runtime, self.campaign_id, self._run_id) as lease:
                # A run may have committed while the lease was waited for.
                self._before(strikes)
                opened = {"terms": terms, "runId": self._run_id}
                self._runtime.draws.open(self.campaign_id, 1, opened, token=lease.token)
                self._decide(lease, 1, {"terms": terms})
        return {"strikes": len(terms["strikes"]), "before": before}

    def _before(self, strikes: Sequence[tuple[str, str]]) -> int:
        record = self._runtime.draws.get(self.campaign_id)
        first = record.phases.get(1) if record else None
        if first is None:
            return 0
        if first.manifest_hash:
            refuse_late_strikes(self.campaign_id, first, merged(strikes))
        return len(Terms.parse(first.fields["terms"]).strikes)


def require_in_pool(bench: Workbench, record: DrawRecord) -> None:
    """Raises RequestError for a strike of an entry that the frozen pool does not have: once a manifest names it, the
    draw could not be made. InputDiffers for a pool that is not the frozen one.
    """
    struck = {ref for ref, _ in Terms.parse(record.phases[1].fields["terms"]).strikes}
    if not struck:
        return
    path = freezing.fetch(bench, record, POOL, bench.root / POOL)
    found = pq.read_table(path, columns=["ref"], filters=pc.field("ref").isin(sorted(struck)))
    if unknown := sorted(struck - set(found["ref"].to_pylist())):
        raise RequestError(
            f"{len(unknown)} of {len(struck)} strikes name no entry that takes part, first {unknown[0]}: mistyped, "
            "or left out already. Nothing is committed; hand in the strikes again without them"
        )
