"""A server before an S3 server, for a key that may not do all: it passes a request on as it came, or refuses it."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx

HOP = ("connection", "transfer-encoding", "keep-alive")  # headers of one connection
REFUSED = b"<Error><Code>AccessDenied</Code></Error>"
Refuses = Callable[[str, dict[str, list[str]]], bool]  # a method, and what the query asks


@contextmanager
def narrowed(values: dict[str, str], pki: Path, refuses: Refuses) -> Iterator[dict[str, str]]:
    """What a Secret for the narrow key holds. The host is signed, so requests keep the one that they came with."""
    behind = httpx.Client(
        base_url=values["AWS_ENDPOINT_URL"], verify=ssl.create_default_context(cadata=values["ca.crt"])
    )

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if refuses(self.command, parse_qs(urlsplit(self.path).query, keep_blank_values=True)):
                return self.answer(403, {"Content-Type": "application/xml"}, REFUSED)
            url = behind.base_url.copy_with(raw_path=self.path.encode())
            answer = behind.request(self.command, url, headers=self.headers.items(), content=body or None)
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP}
            return self.answer(answer.status_code, kept, answer.content)

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            length = headers.pop("content-length", "0")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on  # noqa: N815 -- http.server's names

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pki / "s3.crt", pki / "s3.key")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield {**values, "AWS_ENDPOINT_URL": f"https://localhost:{server.server_port}"}
    finally:
        server.shutdown()
        server.server_close()
        behind.close()
