"""Signatures of AWS's own examples ("Authenticating Requests: Using the Authorization Header")."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest

from llm_trainer.storage.signature import Key, signed, target_of

KEY = Key("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1")
HOST = "examplebucket.s3.amazonaws.com"
EMPTY = hashlib.sha256(b"").hexdigest()
AT = datetime(2013, 5, 24, tzinfo=UTC)


@pytest.mark.parametrize(
    ("path", "query", "headers", "signature"),
    [
        ("/test.txt", {}, {"Range": "bytes=0-9"}, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
        ("/", {"prefix": "J", "max-keys": "2"}, {}, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)
def test_examples(path: str, query: dict[str, str], headers: dict[str, str], signature: str) -> None:
    sent = signed(KEY, "GET", HOST, target_of(path, query), headers, EMPTY, AT)
    assert sent["authorization"].endswith(f", Signature={signature}")
    assert KEY.secret not in str(sent)
    assert KEY.secret not in repr(KEY)


def test_a_target_is_sent_as_it_is_signed() -> None:
    assert target_of("/b/ä +~/(1).bin", {"uploadId": "a/b=", "x": ""}) == (
        "/b/%C3%A4%20%2B~/%281%29.bin?uploadId=a%2Fb%3D&x="
    )


def test_a_session_is_signed_too() -> None:
    sent = signed(Key("a", "s", "r", "session"), "GET", HOST, "/", {}, EMPTY, AT)
    assert sent["x-amz-security-token"] == "session"
    assert "x-amz-security-token" in sent["authorization"]
