"""The public log of draws: notes, the tree, its leaves, and what anybody can follow or witness."""
