"""Who is invited to a campaign: lists from outside into the demand table, and what stands there."""
