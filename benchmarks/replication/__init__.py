"""What replication costs: against its floor, against what it replaces, in memory and in lag."""
