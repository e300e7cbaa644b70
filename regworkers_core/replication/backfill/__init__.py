"""All keys again, at a bounded rate: `flow` starts, pauses and reports, `run` reads and sends, `progress` is
what the lease table keeps.
"""
