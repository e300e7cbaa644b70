"""Runbooks: for each kind of trouble one module that looks, says what is wrong in numbers, and what helps.

Looking changes nothing. What a runbook may change it changes only when it is told to, and that is written down in
`operator_actions`. What needs other flows is handed in by `regworkers_core.operations.runbooks`.
"""
