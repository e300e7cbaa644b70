"""Taking a fan out: `facts` says by what the fan is known, `erase` takes each of it out step by step, `letters` goes
through dead letters, `stays` says what is left and why, `ledger` remembers the erasure for restored stores, and `again`
repeats it for what came back.
"""
