"""The archive: every event of the Kafka topics as one row of Parquet in S3.

In data order: `rows` parses a record, `files` writes a batch and knows the archived ids, `manifest` lists the files and
offsets, `archiver` runs all of that; `compaction` merges small files and expires old days, `archived_events` is for
readers, `status` reports progress and verifies the files.
"""
