"""The public log of draws: what the operator committed to and published, in an order that cannot be changed."""
