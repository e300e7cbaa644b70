"""From the outbox to the mailer's queue: `outbox` decides what may be sent, `source` hands it out, `work` sends it,
`counts` compares winners, codes and messages first.
"""
