"""An HTTP server for a few who ask, which many others can't stop: of a serving's probes, of a training's progress.

Whoever reaches the port may open connections and say nothing: each would hold a thread and a file of a process that has
other work.
"""

from __future__ import annotations

import socket
import sys
import threading
from contextlib import suppress
from http.server import ThreadingHTTPServer
from typing import Any

CONNECTIONS = 32
SECONDS = 10.0  # for which a connection may be silent


class SmallHTTPServer(ThreadingHTTPServer):
    """Of more connections the oldest is closed: who asks has the answer at once."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self._open: dict[Any, None] = {}  # sockets, the oldest first
        self._lock = threading.Lock()
        super().__init__(*arguments, **more)

    def process_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(SECONDS)
        with self._lock:
            oldest = next(iter(self._open)) if len(self._open) >= CONNECTIONS else None
            self._open.pop(oldest, None)
            self._open[request] = None
        if oldest is not None:
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)  # its thread finds the end, and closes it
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who goes away without waiting is no news: a traceback for each would push all else out of the log."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)
