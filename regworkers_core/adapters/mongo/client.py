"""The pooled MongoDB client, and what the driver's exceptions mean."""

from __future__ import annotations

from typing import Any

from pymongo import MongoClient
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    ExecutionTimeout,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
    WTimeoutError,
)

from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.settings import MongoSettings

DEPENDENCY = "mongo"
# Interrupted by a step-down or shutdown, no primary, pool cleared: the server says "again".
_TRANSIENT_CODES = frozenset({6, 7, 89, 91, 112, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436})
_ACCESS_CODES = frozenset({13, 18})


def mongo_client(settings: MongoSettings) -> MongoClient[dict[str, Any]]:
    """A client with time-outs on everything; writes are acknowledged by a majority where there is a set."""
    if settings.uri is None:
        raise UsageError("no MongoDB address: set REGWORKERS_MONGO__URI")
    try:
        return MongoClient(
            settings.uri.get_secret_value(),
            appname="regworkers",
            connectTimeoutMS=int(settings.connect_timeout_seconds * 1000),
            socketTimeoutMS=int(settings.socket_timeout_seconds * 1000),
            serverSelectionTimeoutMS=int(settings.server_selection_timeout_seconds * 1000),
            maxPoolSize=settings.max_connections,
            waitQueueTimeoutMS=int(settings.socket_timeout_seconds * 1000),
            w="majority",
        )
    except (InvalidURI, ConfigurationError) as error:
        raise UsageError(f"REGWORKERS_MONGO__URI is not usable: {type(error).__name__}") from None


def classify_mongo(error: Exception) -> Exception:
    """Connections, elections and time-outs are transient; a refused login is the operator's; a bulk
    error is answered per item and comes back as it is.
    """
    if isinstance(error, BulkWriteError):
        return error
    if isinstance(error, ConnectionFailure | ExecutionTimeout | WTimeoutError | WriteConcernError):
        return TransientFailure(DEPENDENCY, type(error).__name__)
    if isinstance(error, OperationFailure):
        if error.code in _ACCESS_CODES:
            return UsageError("MongoDB refuses the login or the access: check REGWORKERS_MONGO__URI")
        if error.code in _TRANSIENT_CODES or error.has_error_label("RetryableWriteError"):
            return TransientFailure(DEPENDENCY, f"code {error.code}")
        return error
    if isinstance(error, PyMongoError) and error.has_error_label("RetryableWriteError"):
        return TransientFailure(DEPENDENCY, type(error).__name__)
    return error
