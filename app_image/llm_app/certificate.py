"""The server's own certificate, followed as its Secret changes: connections that are open keep theirs."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any

LOOK_SECONDS = 10.0  # a kubelet takes a minute to write what has changed
logger = logging.getLogger(__name__)


class Certificate:
    """Of tls.crt and tls.key in a folder. Raises ValueError if they are no pair."""

    def __init__(self, folder: Path) -> None:
        self._certificate, self._key = folder / "tls.crt", folder / "tls.key"
        self._seen = self._bytes()
        self._newest = self._loaded()
        self.context = self._loaded()
        # With each handshake. To load another pair into one context would leave a key of another kind in it.
        self.context.sni_callback = self._use_newest

    def _use_newest(self, connection: Any, name: str | None, context: ssl.SSLContext) -> None:
        del name, context
        connection.context = self._newest

    def look(self) -> bool:
        """Whether another pair is used from now on. One that is none is told, and the one before it stays."""
        try:
            found = self._bytes()
            if found == self._seen:
                return False
            self._seen = found
            self._newest = self._loaded()
        except ValueError as error:
            logger.warning("%s; the certificate before it is used", error)
            return False
        return True

    async def follow(self, seconds: float = LOOK_SECONDS) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            if self.look():
                logger.warning("spec.tls: the certificate was renewed")

    def _bytes(self) -> tuple[bytes, bytes]:
        try:
            return self._certificate.read_bytes(), self._key.read_bytes()
        except OSError as error:
            raise ValueError(f"spec.tls: its Secret needs tls.crt and tls.key: {error}") from None

    def _loaded(self) -> ssl.SSLContext:
        made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            made.load_cert_chain(self._certificate, self._key, password=lambda: "")  # else it asks a terminal
        except (ssl.SSLError, OSError) as error:
            said = f"spec.tls: tls.crt and tls.key are no certificate and its key without a password: {error}"
            raise ValueError(said) from None
        return made
