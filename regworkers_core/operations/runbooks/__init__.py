"""Runbooks: for each kind of failure one module that reads, says in numbers what is wrong and what helps, and acts.

A runbook changes nothing without `apply`; what it changes is recorded in `operator_actions`.
"""
