"""The archive: every event of the Kafka topics as one row of Parquet in S3.

In data order: `rows` parses a record, `files` writes batches, knows the archived ids, merges small files and expires
old days, `manifest` lists the files and offsets, `archiver` runs all of that; `reading` is for readers: it reports
progress, verifies the files and finds events.
"""
