"""Reconcile compares the demand table with the replica by content: `states` reduces both sides, `scan` loads
them, `compare` joins them out of core, `classify` and `judge` tell drift from lag, `acceptance` lets the source win
where the replica is ahead (`undo` takes that back), `repair` queues keys.
"""

from __future__ import annotations

from regworkers_core.replication.reconcile.acceptance import Accept
from regworkers_core.replication.reconcile.classify import EXPLANATIONS, Kind
from regworkers_core.replication.reconcile.flow import reconcile
from regworkers_core.replication.reconcile.reconcile_report import ReconcileResult, RepairReport

__all__ = ["EXPLANATIONS", "Accept", "Kind", "ReconcileResult", "RepairReport", "reconcile"]
