"""Campaigns in Redis, beside their source."""
