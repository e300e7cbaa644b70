"""The draw as pure maths: files in, files out; no network, no database.

Read in the order of the data: `leaves`, `merkle`, `manifest`, `strikes`, `seed`, `rank`, `allocate`; `compute` runs
the last two. `rules` has what a single receipt needs, in plain hashlib.
"""
