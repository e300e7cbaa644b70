"""From the outbox to the mailer's queue: `units` says what may go, `source` hands it out, `work` sends it,
`switch` stops and starts it.
"""
