"""The suites of adapters and flows against other implementations of the servers: `make conformance`."""
