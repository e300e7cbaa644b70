"""The platform's four services, served on this machine over the embedded MongoDB, with switches for faults."""
