"""All conditions that somebody is alerted of: from one snapshot of the system to incidents, and to those who know.

Read it in this order: condition, the judges (dependencies, scheduler, queues, stream, drains, campaigns, replica,
certificates), table, fold, evaluate.
"""
