"""What is wrong with an artefact of a draw, and in which file."""

from __future__ import annotations


class DrawError(Exception):
    """`artefact` is the file at fault (its name inside the phase's folder); the message says what was found.

    Refs are random and may be named; nothing else of a fan's ever is.
    """

    def __init__(self, artefact: str, message: str) -> None:
        super().__init__(f"{artefact}: {message}")
        self.artefact = artefact
        self.message = message
