"""The platform's four services, served on this machine over the embedded MongoDB, with switches for faults: their HTTP
contract, as FastAPI describes and serves it (`/docs`, `/openapi.json`), as a process of the embedded stack, or inside a
test on its own namespace.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Path, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict
from pymongo.errors import PyMongoError

from regworkers_core.reporting import page
from regworkers_local.service_faults import Fault, Faults, Front, Service
from regworkers_local.service_stores import Stores

# The documentation page needs nothing but its own style sheet.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
TOKEN = "local"  # noqa: S105 - a fixed token, on a server that only this machine reaches
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]
Id = Annotated[str, Path(min_length=1, max_length=1024)]


class Problem(BaseModel):
    detail: str


class Health(BaseModel):
    """`instance` is the id of the embedded stack's instance."""

    status: str
    instance: str


class UserAnswer(BaseModel):
    globalUserId: str
    verifiedPhone: bool
    blocked: bool  # whether the account is locked out
    region: str | None = None
    birthDate: str | None = None


class CodesAnswer(BaseModel):
    """Codes that are AVAILABLE, by market."""

    campaignId: str
    available: dict[str, int]


class EntryAnswer(BaseModel):
    """An entry's fields as in the data contract."""

    model_config = ConfigDict(extra="allow")

    campaignId: str
    entryId: str


class CampaignAnswer(BaseModel):
    """A campaign's fields as in the data contract."""

    model_config = ConfigDict(extra="allow")

    campaignId: str


REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "no token, or not ours"},
    404: {"model": Problem, "description": "there is none"},
    503: {"model": Problem, "description": "MongoDB does not answer"},
}


def make_app(
    stores: Stores, *, token: str = TOKEN, faults: Faults | None = None, instance: str = ""
) -> FastAPI:
    """The contract; `make_front` adds the switches for faults."""
    # FastAPI's own documentation pages load scripts from other sites; ours is one page.
    app = FastAPI(title="The four services", version="1", description=__doc__, docs_url=None, redoc_url=None)
    app.include_router(_contract(stores, token))
    app.include_router(_switches(faults or Faults()))

    @app.get("/health", responses={503: REFUSALS[503]})
    def health() -> Health:
        """Whether the service and its store answer."""
        stores.users.database.command("ping")
        return Health(status="up", instance=instance)

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(
            page("openapi", title=app.title, openapi=app.openapi()),
            headers={"Content-Security-Policy": _CONTENT_SECURITY_POLICY},
        )

    @app.exception_handler(PyMongoError)
    def unavailable(_request: Request, error: PyMongoError) -> JSONResponse:
        return JSONResponse({"detail": f"MongoDB: {type(error).__name__}"}, 503)

    return app


def make_front(stores: Stores, *, token: str = TOKEN, instance: str = "") -> Front:
    faults = Faults()
    return Front(make_app(stores, token=token, faults=faults, instance=instance), faults)


def _contract(stores: Stores, token: str) -> APIRouter:
    def authorised(given: Credentials) -> None:
        if given is None or not secrets.compare_digest(given.credentials.encode(), token.encode()):
            raise HTTPException(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})

    router = APIRouter(dependencies=[Depends(authorised)], responses=REFUSALS)

    @router.get("/users/{globalUserId:path}", tags=["user"])
    def user(globalUserId: Id) -> UserAnswer:
        found = _found(stores.users.find_one({"_id": globalUserId}), "user")
        return UserAnswer(
            globalUserId=globalUserId,
            # A flag that was set by an update comes back from SQLite as 0 or 1.
            verifiedPhone=bool(found.get("verifiedPhone")),
            blocked=bool(found.get("blocked")),
            region=found.get("region"),
            birthDate=found.get("birthDate"),
        )

    @router.get("/campaigns/{campaignId}/codes/available", tags=["code"])
    def codes(campaignId: Id) -> CodesAnswer:
        campaign = _found(stores.campaigns.find_one({"_id": campaignId}), "campaign")
        groups = stores.codes.aggregate(
            [
                {"$match": {"campaignId": campaignId, "status": "AVAILABLE"}},
                {"$group": {"_id": "$marketId", "codes": {"$sum": 1}}},
            ]
        )
        none = {str(market.get("marketId")): 0 for market in campaign.get("markets") or ()}
        counted = {str(group["_id"]): int(group["codes"]) for group in groups}
        return CodesAnswer(campaignId=campaignId, available={**none, **counted})

    @router.get("/campaigns/{campaignId}", tags=["campaign"], response_model=CampaignAnswer)
    def campaign(campaignId: Id) -> Response:
        found = _found(stores.campaigns.find_one({"_id": campaignId}), "campaign")
        return _as_stored(found, campaignId=campaignId)

    @router.get("/{campaignId}/entries/{entryId:path}", tags=["entry"], response_model=EntryAnswer)
    def entry(campaignId: Id, entryId: Id) -> Response:
        found = stores.entries.find_one({"_id": f"{campaignId}:{entryId}"})
        if found is not None and found.get("deletedAt"):
            found = None
        return _as_stored(_found(found, "entry"), campaignId=campaignId, entryId=entryId)

    return router


def _switches(faults: Faults) -> APIRouter:
    router = APIRouter(prefix="/_faults", tags=["faults"])

    @router.get("")
    def show() -> dict[Service, Fault]:
        return faults.on

    refusals: dict[int | str, dict[str, Any]] = {
        400: {"model": Problem, "description": "no JSON"},
        409: {"model": Problem, "description": "it contradicts itself"},
    }

    @router.put("/{service}", responses=refusals)
    def put(service: Service, fault: Fault) -> Fault:
        """Switch on a fault of one service, in place of the previous one."""
        try:
            faults.put(service, fault)
        except ValueError as error:
            raise HTTPException(409, str(error)) from None
        return fault

    @router.delete("", status_code=204)
    def clear() -> None:
        """Switch off all faults."""
        faults.clear()

    return router


def _found(document: dict[str, Any] | None, kind: str) -> dict[str, Any]:
    if document is None:
        raise HTTPException(404, f"no such {kind}")
    return document


def _as_stored(document: dict[str, Any], **ids: str) -> Response:
    """The document without the store's key and the custody fields."""
    fields = {name: value for name, value in document.items() if not name.startswith("_")}
    return Response(orjson.dumps({**fields, **ids}, default=str), media_type="application/json")


HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Serving:
    """Running services: `url` is the address of all, `url + "/user"` that of the User Service, and so on."""

    url: str
    faults: Faults


def server(front: Front, port: int = 0) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            front,
            host=HOST,
            port=port,
            # Plain implementations without layers between, so that a fault can control the connection.
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            proxy_headers=False,
            # Paths hold the ids of fans.
            access_log=False,
            log_level="warning",
            # A fault may hold a request forever.
            timeout_graceful_shutdown=1,
        )
    )


@contextmanager
def served(stores: Stores) -> Iterator[Serving]:
    """Serve in a thread of this process, on a free port, until the block ends."""
    front = make_front(stores)
    running = server(front)
    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, name="services")
        thread.start()
        try:
            # The listener accepts connections from now on, even before they are served.
            yield Serving(f"http://{HOST}:{listener.getsockname()[1]}", front.faults)
        finally:
            running.should_exit = True
            thread.join()


def main() -> None:
    """The process that the embedded stack starts; its environment says what to serve."""
    stores = Stores.at(os.environ["SERVICES_MONGO_URI"], os.environ["SERVICES_PREFIX"])
    front = make_front(stores, instance=os.environ["SERVICES_INSTANCE"])
    server(front, int(os.environ["SERVICES_PORT"])).run()


if __name__ == "__main__":
    main()
