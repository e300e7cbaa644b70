"""Draws of many millions of entries, with DuckDB and Arrow: what the extra `large` adds."""
