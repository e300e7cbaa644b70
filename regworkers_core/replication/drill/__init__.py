"""The recovery drill: the replica is lost, how long until it is back, and is it the same?

`scratch` makes and drops the database that is rebuilt, `replay` saves entries into it as the save drain would, without
its queues and flags, `run` does both, compares and measures.
"""
