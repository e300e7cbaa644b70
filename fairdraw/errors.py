"""What goes wrong: a wrong call or place, and an artefact that does not hold."""

from __future__ import annotations


class UsageError(Exception):
    """Wrong input, settings or environment: one line that says what to do; the terminal exits with 2. `dependency` is
    the one that refused us, if one did.
    """

    dependency = ""


class DrawError(Exception):
    """An artefact that is malformed or contradicts another one.

    `artefact` is the name of the file inside the phase's folder; the message says what was found. It may name a ref,
    which is random, but no other data of a fan.
    """

    def __init__(self, artefact: str, message: str) -> None:
        super().__init__(f"{artefact}: {message}")
        self.artefact = artefact
        self.message = message
