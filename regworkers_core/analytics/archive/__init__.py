"""The archive: every event of the Kafka topics as one row of Parquet in S3.

In data order: `rows` reads what a record holds, `ids` knows what is archived, `files` writes a batch, `manifest` says
what the archive consists of, `commit` moves it on, `run` does all of that; `compaction` keeps files few, `reading` is
for analysts, `verify` checks the promise, `status` tells how far it is.
"""
