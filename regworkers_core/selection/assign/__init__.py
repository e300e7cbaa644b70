"""From the committed result to codes: `committed` reads it, `plan` fixes who gets which code, `release` queues the plan
in chunks, `assigner` assigns a chunk, `markets` completes markets and phases.
"""
