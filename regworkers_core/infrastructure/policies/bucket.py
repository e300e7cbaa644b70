"""The policy of the artefacts' bucket: what no one may do there, whatever their role allows."""

from __future__ import annotations

from typing import Any

# The only files of a draw that are ever replaced, under If-Match: of phase 1, by a repeated commit, and its page.
REPLACEABLE = (
    "draws/*/phase-1/manifest.json",
    "draws/*/phase-1/notice.json",
    "draws/*/page/draw.json.gz",
    "draws/*/page/index.html",
    "draws/*/page/verifier.html",
)
# The public log replaces them: the checkpoint moves on, and keys change.
_LOG = ("log/checkpoint", "log/keys.json")
# Where else an object is replaced under If-Match.
_OTHERS = ("archive/*", "dead-letters/*")
# Parts of a multipart upload have no conditional headers: the condition holds for its last call.
_CREATES = {"Bool": {"s3:ObjectCreationOperation": "true"}}


def bucket_policy(bucket: str) -> dict[str, Any]:
    arn = f"arn:aws:s3:::{bucket}"
    draws = [f"{arn}/draws/*", f"{arn}/log/*"]

    def refuse(sid: str, action: str | list[str], **rest: Any) -> dict[str, Any]:
        return {"Sid": sid, "Effect": "Deny", "Principal": "*", "Action": action, **rest}

    return {
        "Version": "2012-10-17",
        "Statement": [
            refuse(
                "RefuseAccessWithoutTls",
                "s3:*",
                Resource=[arn, f"{arn}/*"],
                Condition={"Bool": {"aws:SecureTransport": "false"}},
            ),
            refuse(
                "WriteFilesOfDrawsOnce",
                "s3:PutObject",
                Resource=draws,
                Condition={"Null": {"s3:if-none-match": "true", "s3:if-match": "true"}, **_CREATES},
            ),
            refuse(
                "ReplaceNoOtherFileOfADraw",
                "s3:PutObject",
                NotResource=[f"{arn}/{key}" for key in (*REPLACEABLE, *_LOG, *_OTHERS)],
                Condition={"Null": {"s3:if-match": "false"}, **_CREATES},
            ),
            refuse(
                "KeepFilesOfDraws",
                ["s3:BypassGovernanceRetention", "s3:DeleteObject", "s3:DeleteObjectVersion"],
                Resource=draws,
            ),
        ],
    }
