"""From the stream to the queue: `events` says what counts, `shards` and `shard_leases` who reads what,
`held_shard` and `source` hand records out, `work` sends their keys, `peek` looks from outside.
"""
