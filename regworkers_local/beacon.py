"""A beacon of this machine: drand's HTTP API for a chain whose key was made at random here. The embedded stack runs it,
so that a draw goes the way of production without waiting. For trying out only: who can read the key knows every round.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fairdraw import bls
from fairdraw.maths.files import sha256_hex
from fairdraw.proof.beacon import DOMAIN, round_message
from fairdraw.terms import CHAIN_FILE, SCHEME, Chain
from regworkers_core.adapters.files import private_folder, write_private
from regworkers_core.settings.documents import OWN_LEAD_SECONDS, TRUST_FILE
from regworkers_local.servers import HOST
from regworkers_local.state import read_json, write_json

_ID, _PERIOD = "of-this-machine", 1
_KEY_FILE = "key"


@dataclass(frozen=True, slots=True)
class OwnChain:
    """A chain and its secret key: a round is signed when it is asked for."""

    chain: Chain
    secret: bytes

    @staticmethod
    def made(genesis: int, secret: bytes | None = None) -> OwnChain:
        """A new chain, with a key at random unless one is given."""
        secret = secret or bls.new_secret()
        group = sha256_hex(secrets.token_bytes(32))
        return OwnChain(Chain(bls.public_key(secret), group, _ID, genesis, _PERIOD), secret)

    @staticmethod
    def kept_in(folder: Path) -> OwnChain:
        """The chain of this folder, which is made with its key if the folder has none."""
        key, described = folder / _KEY_FILE, folder / CHAIN_FILE
        if not described.exists():
            private_folder(folder)
            made = OwnChain.made(int(time.time()))
            write_private(key, made.secret.hex())
            # Last, because it says that the key is there.
            write_private(described, made.chain.to_bytes())
        return OwnChain(Chain.parse(described.read_bytes()), bytes.fromhex(key.read_text()))

    def latest(self, now: float) -> int:
        """The last round that is due; 0 before the first."""
        return max(0, int((now - self.chain.genesis) // self.chain.period) + 1)

    def signature(self, round_number: int) -> str:
        return bls.sign(self.secret, round_message(round_number), DOMAIN)

    def answer(self, path: str, now: float) -> dict[str, Any] | None:
        """What drand's API answers at this path: None for another chain, and for a round before its time."""
        match path.strip("/").split("/"):
            case ["health"]:
                return {"current": self.latest(now), "expected": self.latest(now)}
            case [name, "info"] if name == self.chain.hash:
                return {
                    "public_key": self.chain.public_key,
                    "period": self.chain.period,
                    "genesis_time": self.chain.genesis,
                    "hash": self.chain.hash,
                    "groupHash": self.chain.group_hash,
                    "schemeID": SCHEME,
                    "metadata": {"beaconID": self.chain.beacon_id},
                }
            case [name, "public", which] if name == self.chain.hash:
                latest = self.latest(now)
                number = latest if which == "latest" else int(which) if which.isdecimal() else 0
                if 0 < number <= latest:
                    signature = self.signature(number)
                    return {
                        "round": number,
                        "randomness": sha256_hex(bytes.fromhex(signature)),
                        "signature": signature,
                    }
        return None


def write_trust(path: Path, **parts: Any) -> None:
    """Write these parts of a file for `--trust`; the others stay as they are."""
    empty = {"beacon": {}, "log": [], "need": 0, "witnesses": []}
    write_json(path, empty | read_json(path) | parts)


def server(own: OwnChain, port: int = 0) -> ThreadingHTTPServer:
    """A server of this chain on 127.0.0.1; port 0: any that is free."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = own.answer(self.path, time.time())
            body = json.dumps(found or {"error": "no such chain, or a round that is not signed yet"}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: requests have nothing to keep."""

    return ThreadingHTTPServer((HOST, port), Handler)


def main(folder: Path, port: int) -> None:
    """Serve the chain of this folder, beside which a trust file has its lead."""
    own = OwnChain.kept_in(folder)
    write_trust(folder.with_name(TRUST_FILE), beacon={own.chain.hash: {"lead": OWN_LEAD_SECONDS}})
    server(own, port).serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
