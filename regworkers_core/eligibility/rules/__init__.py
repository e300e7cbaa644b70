"""One file a rule. See `regworkers_core.eligibility.rule`."""
