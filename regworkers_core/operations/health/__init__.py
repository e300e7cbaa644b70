"""The whole system at one look: bounded, in parallel, and honest about what could not be read."""
