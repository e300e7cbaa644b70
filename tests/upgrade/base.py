"""The release that today's code has to take up. The last commit of a release sets it."""

# The full id of its commit.
COMMIT = "b03861475d20a847d9a287901d1dcccb30260c58"
