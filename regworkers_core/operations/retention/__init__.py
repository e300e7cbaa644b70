"""What is over is deleted after a time that the settings name: `tidied` says of each kind what went, `documents` does
it in MongoDB, `reports` on S3, `run` does all parts one after the other.
"""
