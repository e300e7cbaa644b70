"""Runbooks that need several flows: each reads and changes them, and hands what it saw to its judge in
`operations/runbooks`.
"""
