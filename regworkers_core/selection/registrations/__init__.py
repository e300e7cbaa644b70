"""The registration log: a tree of commitments to the entries of a campaign, which only grows."""
