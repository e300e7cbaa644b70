"""What the reports of all flows look like."""
