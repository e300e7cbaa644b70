"""The pipeline in Dagster.

Dagster reads the annotations of decorated functions as objects: a module with such functions does not postpone them by
`from __future__ import annotations`.
"""
