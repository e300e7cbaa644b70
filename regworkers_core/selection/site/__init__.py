"""The public page of a draw: a static site with the proof of every entry, which needs no server but a file's."""
