"""The server's certificate and key, where vLLM notices each time that they change.

A kubelet renews a Secret's volume by other files behind the same names. vLLM 0.31 watches the files themselves
(--enable-ssl-refresh), so it would see the first change and none after it. It gets copies, which are written in place.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_server.arguments import first_of

CERTIFICATE, KEY = "--ssl-certfile", "--ssl-keyfile"
COPIES = "/dev/shm/llm-server-tls"  # noqa: S108 -- in memory: a key should be on no disk
LOOK_SECONDS = 10


@dataclass(frozen=True)
class Certificates:
    certificate: Path
    key: Path
    copies: Path

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Certificates | None:
        """None: the server speaks HTTP."""
        certificate, key = first_of(arguments, CERTIFICATE), first_of(arguments, KEY)
        if certificate is None or key is None:
            return None
        return cls(Path(certificate), Path(key), Path(os.environ.get("LLM_SERVER_TLS", COPIES)))

    def arguments(self) -> list[str]:
        """Of `vllm serve`, after those that name the originals."""
        return [f"{CERTIFICATE}={self.copies / 'tls.crt'}", f"{KEY}={self.copies / 'tls.key'}"]

    def renew(self) -> str | None:
        """Copy what is there, if it is new and can be used; else why it can't."""
        try:
            found = {"tls.crt": self.certificate.read_bytes(), "tls.key": self.key.read_bytes()}
        except OSError as error:
            return f"{error.filename} can't be read: {error.strerror}"
        self.copies.mkdir(mode=0o700, parents=True, exist_ok=True)
        if all((self.copies / name).exists() and (self.copies / name).read_bytes() == found[name] for name in found):
            return None
        tried = self.copies / "tried"
        tried.mkdir(mode=0o700, exist_ok=True)
        write(tried, found)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tried / "tls.crt", tried / "tls.key", lambda: "")
        except (ssl.SSLError, ValueError) as error:
            return f"tls.crt and tls.key are no certificate and its key without a password: {error}"
        write(self.copies, found)
        return None

    def follow(self) -> None:
        """From now on; what can't be used is told once, and the pair before it stays."""

        def look() -> None:
            told = None
            while True:
                time.sleep(LOOK_SECONDS)
                if (problem := self.renew()) and problem != told:
                    print(f"llm_server: spec.tls: {problem}; the certificate before it is used", flush=True)
                told = problem

        threading.Thread(target=look, daemon=True, name="certificates").start()


def write(folder: Path, files: dict[str, bytes]) -> None:
    """In place, for whoever watches these files."""
    for name, content in files.items():
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
