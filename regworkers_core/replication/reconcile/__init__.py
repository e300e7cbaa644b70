"""Reconcile compares the demand table with the replica by content.

`reconciliation` is the run and loads both sides, `comparison` joins and rechecks them, `classify` names each
difference, `repair` queues keys. `acceptance` lets the source win where the replica is ahead, and `undo`
reverts that.
"""
