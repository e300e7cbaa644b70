"""The registrations of a play, checked by a model of the rules that shares no step with the product.

While it runs, trees only grow. At its end each entry that is live is in its campaign's tree exactly once, every other
registration has its notice, the classes sum, a follower of the public log sees each size, and no store has the salt of
an entry that is gone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64encode, urlsafe_b64encode
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from fairdraw.log.parts import published
from tests.fairdraw.maths.oracle import canonical
from tests.fairdraw.registrations import model
from tests.fairdraw.registrations.model import Commitment, Standing, Wrong
from tests.simulation.scheduler import Process

if TYPE_CHECKING:
    from tests.simulation.play import Play

_BUNDLES, _SIZES = "bundles/", "sizes/"


class Registering:
    def __init__(self, play: Play, *campaigns: str) -> None:
        self._play, self._world = play, play.world
        self.campaigns = campaigns
        self.broken: list[str] = []
        # By campaign: what was decided when it was last looked at.
        self._entries: dict[str, list[bytes]] = {each: [] for each in campaigns}
        self._reached: Counter[str] = Counter()
        # Every salt that was ever stored, by the entry.
        self._salts: dict[str, str] = {}
        for operation in ("PutObject", "CompleteMultipartUpload"):
            self._world.monitors.setdefault(("s3", operation), []).append(self._put)
        for operation in ("bulk_write", "update_one"):
            self._world.monitors.setdefault(("mongo", operation), []).append(self._written)

    # While it runs

    def _broke(self, text: str) -> None:
        self._play.tell(f"BROKEN: {text}")
        self.broken.append(text)

    def _put(self, process: Process, request: Mapping[str, Any]) -> None:
        _, _, key = request["Key"].partition("registrations/")
        campaign, _, path = key.partition("/")
        if campaign not in self.campaigns:
            return
        try:
            entries = self._decided(campaign)
            model.standing(entries)
        except Wrong as wrong:
            self._broke(f"{process.name} left no tree of {campaign}: {wrong}")
            return
        before = self._entries[campaign]
        if entries[: len(before)] != before:
            self._broke(f"{process.name} rewrote the tree of {campaign}")
        self._entries[campaign] = entries
        if path == "checkpoint":
            said = json.loads(self._files(campaign)[path])
            if said["size"] < self._reached[campaign]:
                self._broke(f"{process.name} set the size of {campaign} back to {said['size']}")
            self._reached[campaign] = said["size"]
            for finding in self._numbers(campaign, said):
                self._broke(f"{process.name}: {finding}")

    def _written(self, process: Process, request: Any) -> None:
        for document in self._world.documents("entries"):
            salt = document.get("_registration", {}).get("salt")
            if salt is not None and self._salts.setdefault(salt, document["_id"]) != document["_id"]:
                self._broke(f"{process.name} gave the salt of {self._salts[salt]} to {document['_id']}")

    # What the stores hold

    def followed(self, campaign: str) -> list[tuple[str, str]]:
        """Kind and hash of each leaf of a campaign, as a follower of the public log reads them."""
        bucket = self._world.bucket
        found = published(lambda path: None if (stored := bucket.current(path)) is None else stored.data)
        if found is None:
            return []
        leaves = [found.state.leaf(index) for index in range(found.state.size)]
        return [(leaf.kind.value, leaf.hash) for leaf in leaves if leaf.campaign_id == campaign]

    def _sizes(self, campaign: str) -> dict[int, bytes]:
        """The files of the sizes of a tree, ascending."""
        files = self._files(campaign)
        sizes = sorted(int(path[len(_SIZES) : -5]) for path in files if path.startswith(_SIZES))
        return {size: files[f"{_SIZES}{size}.json"] for size in sizes}

    def _files(self, campaign: str) -> dict[str, bytes]:
        """What there is of a tree, by path below its folder."""
        prefix, bucket = f"registrations/{campaign}/", self._world.bucket
        return {
            key.removeprefix(prefix): version.data
            for key in bucket.versions
            if key.startswith(prefix) and (version := bucket.current(key)) is not None and version.data
        }

    def _decided(self, campaign: str) -> list[bytes]:
        """Raises Wrong."""
        return model.decided(
            {
                int(path.removeprefix(_BUNDLES)): data
                for path, data in self._files(campaign).items()
                if path.startswith(_BUNDLES)
            }
        )

    def _numbers(self, campaign: str, said: Mapping[str, Any]) -> Iterator[str]:
        entries = self._entries[campaign][: said["size"]]
        if len(entries) != said["size"] or model.root(entries) != said["root"]:
            yield f"the root of {campaign} at {said['size']} is not that of its entries"
        elif (true := model.standing(entries).numbers()) != {each: said[each] for each in true}:
            yield f"{campaign} at {said['size']} says {said} instead of {true}"

    def _documents(self, campaign: str) -> list[dict[str, Any]]:
        return [each for each in self._world.documents("entries") if each["campaignId"] == campaign]

    def _unit(self, campaign: str, document: Mapping[str, Any]) -> str:
        """As it is published: under the campaign's key, which is in the secret with the code key."""
        if "unit" not in document:
            return str(document["ref"])
        secret = self._play.platform.runtime.secrets.get(f"campaign-keys/{campaign}")
        key = bytes.fromhex(str(secret).partition(" ")[0])
        mac = hmac.digest(key, f"vfunit2|{campaign}|{document['unit']}".encode(), "sha256")
        return "u-" + urlsafe_b64encode(mac).decode().rstrip("=")

    # The end

    def differences(self) -> list[str]:
        """What is still to be done."""
        found = [text for campaign in self.campaigns for text in self._missing(campaign)]
        return found or [text for campaign in self.campaigns for text in self._not_public(campaign)]

    def _not_public(self, campaign: str) -> Iterator[str]:
        seen = self.followed(campaign)
        for size, file in self._sizes(campaign).items():
            if ("registrations", _sha256(file)) not in seen:
                yield f"the public log has no leaf of size {size} of {campaign}"

    def _missing(self, campaign: str) -> Iterator[str]:
        entries = self._decided(campaign)
        standing, live = model.standing(entries), set[int]()
        for document in self._documents(campaign):
            registered = document.get("_registration")
            if "deletedAt" in document:
                if registered is not None:
                    yield f"{document['_id']} is removed, and its registration has no notice: {[*registered]}"
                continue
            if registered is None or not {"index", "salt"} <= registered.keys():
                yield f"{document['_id']} is not registered: {[*(registered or ())]}"
                continue
            live.add(registered["index"])
            yield from self._standing(campaign, document, registered, standing)
        for index in sorted(standing.live - live):
            yield f"registration {index} of {campaign} is live, and no entry has it"
        size = len(entries)
        checkpoint = self._files(campaign).get("checkpoint")
        if size and (checkpoint is None or json.loads(checkpoint)["size"] != size):
            yield f"the checkpoint of {campaign} has not the {size} entries that were decided"

    def _standing(
        self, campaign: str, document: Mapping[str, Any], registered: Mapping[str, Any], standing: Standing
    ) -> Iterator[str]:
        id_, index = document["_id"], registered["index"]
        unit = self._unit(campaign, document)
        mine = Commitment(campaign, document["ref"], unit, registered["at"], registered["salt"])
        if index in standing.gone:
            yield f"{id_} is live, and registration {index} was {standing.gone[index]}"
        elif standing.leaves.get(index) != mine.leaf:
            yield f"registration {index} is not that of {id_}"
        elif registered["leaf"] != mine.leaf:
            yield f"{id_} says another leaf than that of registration {index}"

    def check(self) -> Iterator[str]:
        yield from self.broken
        for campaign in self.campaigns:
            yield from self._trees(campaign)
            yield from self._events(campaign)
            yield from self._drawn(campaign)
        yield from self._no_way_back()

    def _trees(self, campaign: str) -> Iterator[str]:
        """Each class has its number; every file is what it has to be, and was written once."""
        files, entries = self._files(campaign), self._decided(campaign)
        if not entries:
            return
        said, documents = json.loads(files["checkpoint"]), self._documents(campaign)
        yield from self._numbers(campaign, said)
        live = sum("deletedAt" not in each for each in documents)
        if said["size"] != said["notices"] + live + said["withdrawn"] + said["erased"]:
            yield f"the classes of {campaign} are not {said['size']} with {live} live entries: {said}"
        sizes = self._sizes(campaign)
        if said["sizes"] != [*sizes]:
            yield f"{campaign} has the sizes {[*sizes]}, and says {said['sizes']}"
        logged = [hash_ for kind, hash_ in self.followed(campaign) if kind == "registrations"]
        if logged != [*map(_sha256, sizes.values())]:
            yield f"the log does not have the sizes {[*sizes]} of {campaign} in this order: {logged}"
        self._world.reached["sizes followed"] += len(logged)
        wanted = {path: data for path, data in model.tiles(entries).items() if ".p/" not in path}
        for size in sizes:
            wanted |= model.tiles(entries[:size])
            document = {"campaignId": campaign, "root": model.root(entries[:size]), "size": size}
            wanted[f"{_SIZES}{size}.json"] = canonical(document)
        mine = {path: data for path, data in files.items() if path.startswith(("tile/", _SIZES))}
        if mine.keys() - wanted.keys():
            # A holder that put the last tiles of a size died before its file; to the next one's clock none was due.
            begun = {
                path: data
                for size in range(len(entries))
                for path, data in model.tiles(entries[: size + 1]).items()
            }
            wanted |= {path: begun[path] for path in mine.keys() & begun.keys() if ".p/" in path}
        if wanted != mine:
            differ = sorted(
                path for path in wanted.keys() | mine.keys() if wanted.get(path) != mine.get(path)
            )
            yield f"{campaign} differs at {', '.join(differ)}"
        self._world.reached["registrations"] += len(entries)
        self._world.reached["notices"] += said["notices"]
        self._world.reached["sizes"] += len(sizes)

    def _events(self, campaign: str) -> Iterator[str]:
        """Each live entry has one that tells its place, and none tells another one or more than that."""
        standing = model.standing(self._entries[campaign])
        announced: dict[tuple[str, int], set[str]] = {}
        for value in self._world.records():
            event = orjson.loads(value)
            data = event.get("data", {})
            if event["type"] != "entry.logged" or data["campaignId"] != campaign:
                continue
            announced.setdefault((f"{campaign}:{data['entryId']}", data["index"]), set()).add(event["id"])
            if data["index"] not in standing.leaves or data["size"] <= data["index"]:
                yield f"an event of {campaign} says {data}"
        for what, ids in announced.items():
            if len(ids) != 1:
                yield f"the events entry.logged of {what} have {len(ids)} ids"
        for document in self._documents(campaign):
            registered = document.get("_registration")
            if registered is not None and (document["_id"], registered["index"]) not in announced:
                yield f"{document['_id']} was registered without an event"

    def _drawn(self, campaign: str) -> Iterator[str]:
        """The manifest counts the list as it was at the freeze, and each entry of the draw was live there then."""
        folder, bucket = f"draws/{campaign}/phase-1", self._world.bucket
        if (found := bucket.current(f"{folder}/manifest.json")) is None:
            return
        manifest = json.loads(found.data or b"")
        self._world.reached["manifests replaced"] += bucket.current(f"{folder}/replaced-1.json") is not None
        said = manifest["registrations"]
        if said is None:
            yield f"the manifest of {campaign} counts no registrations"
            return
        yield from self._numbers(campaign, said)
        classed = said["notices"] + manifest["count"] + said["excluded"] + said["withdrawn"] + said["erased"]
        if said["size"] != classed or said["excluded"]:
            yield f"the classes of the manifest of {campaign} are {said}, and {manifest['count']} are drawn"
        before: list[str] = []
        for kind, hash_ in self.followed(campaign):
            if (kind, hash_) == ("manifest", _sha256(found.data or b"")):
                break
            before += [hash_] * (kind == "registrations")
        if said["size"] and before[-1:] != [_sha256(self._sizes(campaign).get(said["size"], b""))]:
            yield f"the last size of {campaign} in the log before its manifest is not {said['size']}"
        standing = model.standing(self._entries[campaign][: said["size"]])
        listed = (bucket.current(f"{folder}/leaves.txt").data or b"").decode().splitlines()  # type: ignore[union-attr]
        units = dict(line.split("|")[:2] for line in listed)
        for document in self._documents(campaign):
            registered = document.get("_registration", {})
            if "salt" not in registered or document.get("ref") not in units:
                continue
            ref = document["ref"]
            mine = Commitment(campaign, ref, units[ref], registered["at"], registered["salt"])
            if registered["index"] in standing.gone or standing.leaves.get(registered["index"]) != mine.leaf:
                yield f"{document['_id']} is in the draw, and not as it was registered"
        self._world.reached["registrations drawn"] += len(units)
        (draw,) = self._world.documents("draws")
        self._world.reached["registrations lost"] += draw["phases"]["1"].get("lostRegistrations", 0)

    def _no_way_back(self) -> Iterator[str]:
        """The salt of an entry is beside it in MongoDB, and nowhere once the entry is gone."""
        held = {
            document["_registration"]["salt"]
            for campaign in self.campaigns
            for document in self._documents(campaign)
            if "salt" in document.get("_registration", {})
        }
        everything = [*self._world.everything()]
        for salt, id_ in self._salts.items():
            for where, data in everything:
                allowed = where == "mongo entries" and salt in held
                if not allowed and any(each in data for each in _forms(salt)):
                    yield f"the salt of {id_} is in {where}"
        self._world.reached["salts gone"] += len(self._salts.keys() - held)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _forms(salt: str) -> tuple[bytes, ...]:
    raw = bytes.fromhex(salt)
    return salt.encode(), raw, b64encode(raw).rstrip(b"=")
