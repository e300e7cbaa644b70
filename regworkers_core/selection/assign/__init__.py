"""From the committed result to codes: `committed` reads it, `plan` lays down who gets which code, `publish`
queues the plan in chunks, `assigner` claims, writes and enqueues a chunk, `completion` closes markets and phases.
"""
