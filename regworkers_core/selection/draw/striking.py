"""Strikes before the commit: handed in at any time, also while fans still register, and kept for the draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from regworkers_core.selection.draw.held import HeldDraw
from regworkers_core.selection.draw.opening import refuse_late_strikes
from regworkers_core.selection.draw.terms import Terms, merged


class Striking(HeldDraw):
    """The strikes of phase 1, as long as no manifest names them."""

    def strike(self, strikes: Sequence[tuple[str, str]], *, dry_run: bool) -> dict[str, Any]:
        """Let these refs, and no others, take no place; `strikes` are pairs of ref and reason. Returns how many there
        are, and how many there were `before`.

        Raises RequestError for a malformed one and once a manifest is committed without them, DrawBusy while another
        run works on the draw, TransientFailure when a store cannot answer.
        """
        terms = Terms.of(self._campaign(), strikes).as_fields()
        before = self._before(strikes)
        if not dry_run:
            with self._lease() as lease:
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
