"""Reconcile compares the demand table with the replica by content.

`reconciliation` is the run and loads both sides, `comparison` joins and rechecks them, `classify` names each
difference, `repair` queues keys. `acceptance` lets the source win where the replica is ahead, and `undo`
reverts that.
"""

from __future__ import annotations

from regworkers_core.replication.reconcile.acceptance import Accept
from regworkers_core.replication.reconcile.classify import EXPLANATIONS, Kind
from regworkers_core.replication.reconcile.reconciliation import ReconcileResult, reconcile
from regworkers_core.replication.reconcile.repair import RepairReport

__all__ = ["EXPLANATIONS", "Accept", "Kind", "ReconcileResult", "RepairReport", "reconcile"]
