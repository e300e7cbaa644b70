"""The draw as pure maths: files in, files out; no network, no database.

In the order of the data: `leaves`, `merkle`, `manifest` (with strikes and seed), `rank`, `phase`, `allocate`,
`outcomes`. `allocate.compute` runs all after the seed. `rules` has what a single receipt needs, in plain hashlib.
"""
