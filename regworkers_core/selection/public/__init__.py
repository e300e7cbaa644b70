"""What everybody may read of a draw: the log that the operator writes, the published files, and the page of a draw."""
