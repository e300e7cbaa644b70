"""The judgement of a whole campaign: every entry at one moment, and a report of it."""
