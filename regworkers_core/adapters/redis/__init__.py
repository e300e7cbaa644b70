"""A cache of campaigns in Redis, in front of their source."""
