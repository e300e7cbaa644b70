"""The pooled MongoDB client, and what the driver's exceptions mean."""

from __future__ import annotations

import re
from typing import Any

from pymongo import MongoClient
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
    WriteError,
    WTimeoutError,
)

from regworkers_core.adapters.mongo.store import DUPLICATE_KEY
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.settings import MongoSettings

DEPENDENCY = "mongo"
# The driver's own list (from the specifications of retryable reads and writes; it is private in pymongo, a test
# compares), and what else a member answers that has no time, no space or no primary.
_TRANSIENT_CODES = frozenset(
    {6, 7, 89, 91, 112, 133, 134, 189, 202, 262, 290, 317, 365, 462, 9001}
    | {10058, 10107, 11600, 11602, 13435, 13436, 14031}
)
# UserNotFound, AuthenticationFailed, MechanismUnavailable, ReauthenticationRequired.
_LOGIN_CODES = frozenset({11, 18, 334, 391})
_ACCESS_CODES = frozenset({13})
# Atlas wraps everything that its proxy refuses.
_ATLAS = 8000
# From the server's list of errors, those about a command that can never succeed: bad values, names and options, missing
# and existing collections and indexes, unknown commands. Any other code of a read is the server's own problem.
_COMMAND_CODES = frozenset((
    2, 9, 14, 15, 16, 17, 20, 22, 26, 27, 28, 40, 43, 47, 48, 52, 53, 54, 55, 56, 57, 59, 61, 66, 67, 68, 72, 73, 85,
    86, 96, 115, 121, 166, 168, 197, 238, 263, 292, 303, 10334, 16755, 17280, 17419,
))  # fmt: skip
_AGAIN_LABELS = ("RetryableWriteError", "RetryableError", "SystemOverloadedError")
# What the driver quotes of the system's resolver: `host:27017: [Errno -2] Name or service not known`.
_UNRESOLVED = re.compile(r"([\w.\-]+:\d+): \[Errno -?\d+\] [^(\[]*(?:[Nn]ame|nodename|hostname|getaddrinfo)")
_REFUSING = re.compile(r"([\w.\-]+:\d+): \[Errno -?\d+\] Connection refused")
_URI_UNUSABLE = "REGWORKERS_MONGO__URI is not usable"


def mongo_client(settings: MongoSettings, *, patient: bool = False) -> MongoClient[dict[str, Any]]:
    """A client with time-outs on everything; writes are acknowledged by a majority where there is a set. A `patient`
    one waits for an answer for as long as its connection lives: builds of indexes take minutes.
    """
    if settings.uri is None:
        raise UsageError("no MongoDB address: set REGWORKERS_MONGO__URI")
    uri = settings.uri.get_secret_value()
    options: dict[str, Any] = {
        "appname": "regworkers",
        "connectTimeoutMS": int(settings.connect_timeout_seconds * 1000),
        "socketTimeoutMS": int(settings.socket_timeout_seconds * 1000),
        "serverSelectionTimeoutMS": int(settings.server_selection_timeout_seconds * 1000),
        "maxPoolSize": settings.max_connections,
        "waitQueueTimeoutMS": int(settings.socket_timeout_seconds * 1000),
        "w": "majority",
        # Others write here, too. What Python has no value for must not fail the read of all documents beside it.
        "datetime_conversion": "DATETIME_AUTO",
        "unicode_decode_error_handler": "replace",
    }
    if patient:
        options["socketTimeoutMS"] = 0
    try:
        try:
            return MongoClient(uri, **options)
        except ConfigurationError as error:
            if _of_dns(error) is None:
                raise
            # The hosts of `mongodb+srv` could not be looked up. This client looks them up at its first use, in a call
            # that is retried like any other.
            return MongoClient(uri, connect=False, **options)
    except ConfigurationError as error:
        raise UsageError(f"{_URI_UNUSABLE}: {type(error).__name__}") from None


def classify_mongo(error: Exception) -> Exception:
    """Connections, elections, DNS, time-outs and codes that are not about the command itself are transient; a refused
    login and refused access are a UsageError each; an error about a command or a written document is returned as it is,
    and so is that of a bulk whose only mistake are keys that exist.
    """
    if isinstance(error, BulkWriteError):
        return _of_bulk(error)
    if isinstance(error, ConnectionFailure | ExecutionTimeout | WTimeoutError | WriteConcernError):
        return TransientFailure(DEPENDENCY, _reason(error))
    if isinstance(error, ConfigurationError):
        unresolved = _of_dns(error)
        if unresolved is None:
            return UsageError(f"{_URI_UNUSABLE}: {type(error).__name__}")
        return TransientFailure(DEPENDENCY, f"{unresolved}: is the host in REGWORKERS_MONGO__URI right?")
    if isinstance(error, PyMongoError) and any(map(error.has_error_label, _AGAIN_LABELS)):
        overloaded = error.has_error_label("SystemOverloadedError")
        return TransientFailure(DEPENDENCY, _reason(error), throttled=overloaded)
    if isinstance(error, OperationFailure):
        return _of_server(error)
    return error


def _of_bulk(error: BulkWriteError) -> Exception:
    """A full disk, a quota and an election answer for each document, and are about none of them."""
    codes = {each.get("code") for each in error.details.get("writeErrors", ())} - {DUPLICATE_KEY}
    if error.details.get("writeConcernErrors"):
        return TransientFailure(DEPENDENCY, "write concern not satisfied")
    return TransientFailure(DEPENDENCY, f"codes {sorted(map(str, codes))}") if codes else error


def _of_server(error: OperationFailure) -> Exception:
    code, said = error.code, str(error).lower()
    if code in _ACCESS_CODES or (code == _ATLAS and "not allowed" in said):
        return UsageError(
            f"MongoDB refuses access (code {code}): check the roles of the user in REGWORKERS_MONGO__URI"
        )
    if code in _LOGIN_CODES or (code == _ATLAS and "auth" in said):
        return UsageError(
            f"MongoDB refuses the login (code {code}): check user, password and authSource in REGWORKERS_MONGO__URI"
        )
    if code in _TRANSIENT_CODES:
        return TransientFailure(DEPENDENCY, _reason(error))
    # The driver has a class of its own for a written document that is refused.
    if isinstance(error, WriteError) or code in _COMMAND_CODES:
        return error
    return TransientFailure(DEPENDENCY, _reason(error))


def _reason(error: Exception) -> str:
    """Without the driver's text, which may print a document; names a host that DNS does not know or that refuses."""
    if isinstance(error, OperationFailure) and error.code is not None:
        return f"code {error.code}"
    unresolved = _UNRESOLVED.search(str(error)) if isinstance(error, ConnectionFailure) else None
    if unresolved:
        return f"{type(error).__name__}: DNS does not know {unresolved[1]}"
    if isinstance(error, ConnectionFailure) and (refusing := _REFUSING.search(str(error))):
        return f"{type(error).__name__}: {refusing[1]} refused the connection"
    return type(error).__name__


def _of_dns(error: Exception) -> str | None:
    """What DNS answered to the lookup of `mongodb+srv` (it holds no login); None for other errors."""
    cause = error.__cause__
    if cause is None or not type(cause).__module__.startswith("dns."):
        return None
    return f"{type(cause).__name__}: {cause}"
