"""From the queue to the replica: `work` says what is done with the items, `saver` saves entries step by step."""
