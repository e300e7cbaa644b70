"""The code of a winner in a receipt: its salt, its line among the planned codes, and the list of these."""

from __future__ import annotations

from fairdraw.bls import SIGNATURE_FORM
from fairdraw.log.leaves import Kind
from fairdraw.maths.beside import codes_number
from fairdraw.maths.codes import NO_CODE_KEY, PlannedLine, digest_of, is_code, is_salt, lines_in, normal
from fairdraw.maths.files import Fields, sha256_hex
from fairdraw.maths.opened import Opened
from fairdraw.proof.logged import NO_LOG, LogPart, Unchecked
from fairdraw.proof.parts import wrong
from fairdraw.terms import is_selection_id

CODE = "code"
_NO_CODE_KEY = f"{NO_CODE_KEY}: this code may have another salt, and another winner"
_KEYS = ("code", "list", "market", "position", "salt")


class CodePart:
    """The key `code` of a receipt, which only the winner's own one has."""

    def __init__(self, fields: Fields) -> None:
        own = fields.nested(CODE, _KEYS)
        self._code = own.text("code", is_code, "a code")
        self._salt = own.text("salt", SIGNATURE_FORM.fullmatch, "a signature of 96 lower-case hex digits")
        self.market = own.text("market", is_selection_id, "a market's id")
        self._position = own.integer("position", 1)
        planned = own.nested("list", ("hash", "name", "phase"))
        self._hash = planned.hash("hash")
        self._phase = planned.integer("phase", 1)
        name = planned.text("name", codes_number, "the name of a list of planned codes")
        self._name = f"phase-{self._phase}/{name}"

    def check(self, campaign_id: str, opened: Opened | None) -> str:
        """Check that the salt is the one that the campaign's code key makes. `opened` is the campaign as it was last
        logged. Raises DrawError, Unchecked.
        """
        if opened is None or opened.code_key is None:
            raise Unchecked(_NO_CODE_KEY)
        code = normal(self._code, caseless=opened.caseless)
        if not is_salt(opened.code_key, campaign_id, code, self._salt):
            wrong("the salt is not the signature of the code under the campaign's code key: it was invented")
        return f"the only salt of this code; its line is {self._line(opened)}"

    def check_planned(self, opened: Opened | None, log: LogPart | None, data: bytes | None) -> str:
        """Check that the code is at its place in the list of planned codes, and in no other one. `data` is that file.
        Raises DrawError, Unchecked.
        """
        if log is None:
            raise Unchecked(NO_LOG)
        if (self._phase, self._hash) not in ((leaf.phase, leaf.hash) for leaf in log.leaves(Kind.CODES)):
            wrong(f"{self._name} with SHA-256 {self._hash} is not in the log")
        if opened is None or opened.code_key is None:
            raise Unchecked(_NO_CODE_KEY)
        if data is None:
            raise Unchecked(
                f"list of planned codes not given: {self._name} beside the published files, with SHA-256 {self._hash}"
            )
        if (found := sha256_hex(data)) != self._hash:
            wrong(f"the list that was given has SHA-256 {found}, {self._name} in the log {self._hash}")
        try:
            lines = lines_in(data)
        except ValueError as error:
            wrong(f"{self._name}: {error}")
        line = self._line(opened)
        if line not in lines:
            wrong(f"{self._name} has no line {line}")
        if others := [each for each in lines if each.digest == line.digest and each != line]:
            wrong(f"{self._name} has this code for another winner, too: {others[0]}")
        return f"{line}: once among the {len(lines)} planned codes of {self._name}"

    def _line(self, opened: Opened) -> PlannedLine:
        digest = digest_of(self._salt, normal(self._code, caseless=opened.caseless))
        return PlannedLine(self.market, self._position, digest)
