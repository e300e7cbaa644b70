"""The release that today's code has to take up. The last commit of a release sets it."""

# The full id of its commit; empty while there is none.
COMMIT = ""
