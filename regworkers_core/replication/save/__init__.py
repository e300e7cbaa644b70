"""From the queue to the replica: `work` settles messages, `saver` saves entries step by step,
`dead_letters` takes what cannot be saved.
"""
