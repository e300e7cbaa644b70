"""Servers in memory that behave as the real services do, at the level of their client libraries' methods."""
