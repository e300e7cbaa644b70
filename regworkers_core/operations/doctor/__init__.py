"""The doctor: the snapshot of the system with the judgement of every alert condition, each with the command that helps.

Read it in this order: row, sections (the facts of each part as rows), examination (what the conditions say to them),
reading.
"""
