"""The log lines of one entry's way, from CloudWatch or from the files of a laptop."""
