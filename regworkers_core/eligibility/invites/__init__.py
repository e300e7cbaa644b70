"""Invites to a campaign: lists are uploaded to the demand table, looked up and removed there."""
