"""S3's multipart uploads, request by request: which are open in a bucket, and which parts they have.

obstore makes and forgets them, so what a killed pod had sent of a file could not be gone on with.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import httpx

from llm_trainer.storage import http_ranges
from llm_trainer.storage.credentials import Credential
from llm_trainer.storage.signature import Key, signed, target_of

SECONDS = 60.0  # without a byte
MOST_PARTS = 10_000  # of an upload
ANSWER_BYTES = 16 << 20  # of XML
DIGEST = "llm-operator-digest"  # metadata of an object: that of the file, as the manifest has it


class AnswerError(OSError):
    """The server refuses; its text has the status and S3's word for it."""

    def __init__(self, status: int, phrase: str, code: str) -> None:
        super().__init__(f"{status} {phrase}: {code}")
        self.status, self.code = status, code


class UploadGoneError(Exception):
    """The upload was completed, or ended by somebody else."""


@dataclass(frozen=True)
class Part:
    number: int  # from 1
    size: int
    etag: str
    sha256: str = ""  # in base64, if the server keeps it

    def holds(self, data: bytes) -> bool:
        """By the server's own word: its ETag is the MD5 of a part that it doesn't encrypt by a key of its own."""
        if self.size != len(data):
            return False
        if self.sha256:
            return self.sha256 == sha256_of(data)
        return self.etag.strip('"') == hashlib.md5(data, usedforsecurity=False).hexdigest()


def sha256_of(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def key_of(credential: Credential) -> Key | None:
    """None where a pod shows its own identity, which obstore alone can do."""

    def given(name: str) -> str:
        return credential.get(name) or ("" if credential.secret else os.environ.get(name, ""))

    identity, secret = given("AWS_ACCESS_KEY_ID"), given("AWS_SECRET_ACCESS_KEY")
    region = given("AWS_REGION") or given("AWS_DEFAULT_REGION") or "us-east-1"
    return Key(identity, secret, region, given("AWS_SESSION_TOKEN")) if identity and secret else None


class Multipart:
    """Every method raises OSError: AnswerError, or another for a server that can't be reached."""

    def __init__(self, bucket: str, credential: Credential, key: Key) -> None:
        endpoint = credential.get("AWS_ENDPOINT_URL") or (
            "" if credential.secret else os.environ.get("AWS_ENDPOINT_URL")
        )
        self._base = httpx.URL(f"{(endpoint or f'https://s3.{key.region}.amazonaws.com').rstrip('/')}/{bucket}")
        self._key = key
        self._client = http_ranges.client(credential, {})
        self._client.follow_redirects = False  # a signature is for one host
        self._client.timeout = httpx.Timeout(SECONDS)

    def open(self, prefix: str) -> dict[str, list[str]]:
        """Uploads below a prefix by the keys of their objects, the newest last."""
        found: dict[str, list[tuple[str, str]]] = defaultdict(list)
        markers = {"key-marker": "NextKeyMarker", "upload-id-marker": "NextUploadIdMarker"}
        for page in self._pages("", {"uploads": "", "prefix": prefix}, markers):
            for upload in page.iterfind("{*}Upload"):
                found[_text(upload, "Key")].append((_text(upload, "Initiated"), _text(upload, "UploadId")))
        return {key: [upload for _, upload in sorted(uploads)] for key, uploads in found.items()}

    def parts(self, key: str, upload: str) -> list[Part]:
        """Raises UploadGoneError."""
        pages = self._pages(key, {"uploadId": upload}, {"part-number-marker": "NextPartNumberMarker"})
        return [
            Part(int(_text(part, "PartNumber")), int(_text(part, "Size")), _text(part, "ETag"),
                 _text(part, "ChecksumSHA256"))
            for page in pages for part in page.iterfind("{*}Part")
        ]  # fmt: skip

    def begin(self, key: str, digest: str) -> str:
        """Its upload."""
        told = {f"x-amz-meta-{DIGEST}": digest, "x-amz-checksum-algorithm": "SHA256"}
        return _text(_read(self._ask("POST", key, {"uploads": ""}, headers=told)), "UploadId")

    def send(self, key: str, upload: str, number: int, data: bytes) -> Part:
        """Raises UploadGoneError."""
        summed = sha256_of(data)
        query = {"partNumber": str(number), "uploadId": upload}
        answer = self._ask("PUT", key, query, data, {"x-amz-checksum-sha256": summed})
        return Part(number, len(data), answer.headers.get("ETag", ""), summed)

    def complete(self, key: str, upload: str, parts: list[Part]) -> None:
        """Raises UploadGoneError."""
        listed = "".join(
            f"<Part><PartNumber>{part.number}</PartNumber><ETag>{part.etag}</ETag>"
            + (f"<ChecksumSHA256>{part.sha256}</ChecksumSHA256>" if part.sha256 else "")
            + "</Part>"
            for part in sorted(parts, key=lambda part: part.number)
        )
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        answer = _read(self._ask("POST", key, {"uploadId": upload}, body))
        if answer.tag.rpartition("}")[2] == "Error":  # S3 begins with 200 and says how it went at the end
            raise AnswerError(500, "Internal Error", _text(answer, "Code"))

    def abort(self, key: str, upload: str) -> None:
        with suppress(UploadGoneError):
            self._ask("DELETE", key, {"uploadId": upload})

    def _pages(self, key: str, query: Mapping[str, str], markers: Mapping[str, str]) -> Iterator[ET.Element]:
        """``markers``: names in the query by those in the answer."""
        after: dict[str, str] = {}
        while True:
            page = _read(self._ask("GET", key, {**query, **after}))
            yield page
            if _text(page, "IsTruncated") != "true":
                return
            after = {name: _text(page, said) for name, said in markers.items()}

    def _ask(
        self,
        method: str,
        key: str,
        query: Mapping[str, str],
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        path = self._base.path + (f"/{key}" if key else "")
        target = target_of(path, query)
        url = self._base.copy_with(raw_path=target.encode())
        digest = hashlib.sha256(body).hexdigest()
        sent = signed(self._key, method, url.netloc.decode(), target, headers or {}, digest)
        try:
            answer = self._client.request(method, url, headers=sent, content=body or None)
        except httpx.HTTPError as error:
            raise OSError(f"{type(error).__name__}: {error}") from error
        if answer.is_success:
            return answer
        code = _code(answer)
        if code == "NoSuchUpload":
            raise UploadGoneError
        raise AnswerError(answer.status_code, answer.reason_phrase, code)


def _read(answer: httpx.Response) -> ET.Element:
    try:
        if len(answer.content) <= ANSWER_BYTES:
            return ET.fromstring(answer.content)  # noqa: S314 -- expat bounds what entities grow to
    except ET.ParseError:
        pass
    raise AnswerError(answer.status_code, "an answer that is no XML", "")


def _code(answer: httpx.Response) -> str:
    try:
        return _text(_read(answer), "Code")
    except AnswerError:
        return ""


def _text(element: ET.Element, name: str) -> str:
    return element.findtext(f"{{*}}{name}") or ""
