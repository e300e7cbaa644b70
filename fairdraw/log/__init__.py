"""The public log of draws: notes, the tree and its leaves, how to follow a log, and a witness of logs."""
