"""Documents of the network, from a real HTTPS server, and PDF files."""

from __future__ import annotations

import gzip
import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader, PdfWriter

from llm_app import pdf
from llm_app.addresses import outside
from llm_app.config import Chunking, IndexConfig, IndexSource
from llm_app.documents import DataError
from llm_app.pdf import document
from llm_app.store import Index
from llm_app.web import FetchError, check, fetched
from llm_trainer.protocol import ExitCode

CODE = (
    "import json, pathlib, sys; from llm_app import web; web.SECONDS, web.TRIES = 5.0, 2; "
    "from llm_app.index import run; "
    "code, word = run(pathlib.Path(sys.argv[1])); print(json.dumps([code, word]))"
)
LOCAL = ["127.0.0.0/8", "::1/128"]


@dataclass
class Site:
    url: str
    certificate: Path
    pages: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def index(self, folder: Path, *paths: str, allowed: list[str] | None = None) -> tuple[int, dict[str, Any]]:
        """As a pod: what it trusts is read when it starts."""
        source = IndexSource(name="web", urls=[path if "://" in path else self.url + path for path in paths],
                             allowed_networks=LOCAL if allowed is None else allowed)  # fmt: skip
        config = IndexConfig(
            knowledge="k", revision="one", folder=str(folder / "k"), chunking=Chunking(), sources=[source]
        )
        (folder / "index.json").write_text(config.model_dump_json(by_alias=True))
        ran = subprocess.run([sys.executable, "-c", CODE, str(folder / "index.json")], capture_output=True, text=True,
                             env={"SSL_CERT_FILE": str(self.certificate), "PYTHONPATH": ":".join(sys.path)},
                             check=True)  # fmt: skip
        code, word = json.loads(ran.stdout.splitlines()[-1])
        return code, word


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key", folder / "crt"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
                    "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
                   check=True, capture_output=True)  # fmt: skip

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            status, headers, body = made.pages.get(self.path.partition("?")[0], (404, {}, b""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if headers.get("X-Silent"):
                silent.wait(20)
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    silent = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    made = Site(f"https://localhost:{server.server_port}", certificate)
    thread.start()
    yield made
    silent.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_documents_of_each_kind(site: Site, tmp_path: Path) -> None:
    site.pages = {
        "/a": (200, {"Content-Type": "text/html; charset=shift_jis"},
               "<title>題</title><p>保証は三年</p>".encode("shift_jis")),
        "/b.md": (200, {"Content-Type": "text/plain"}, b"# Care\n\nOil it."),
        "/c": (302, {"Location": "/d.jsonl?x=1"}, b""),
        "/d.jsonl": (200, {"Content-Type": "application/octet-stream"}, b'{"title": "row", "text": "one"}\n'),
        "/e": (200, {"Content-Type": "application/pdf"}, pdf_of("The valve is red.")),
        "/f": (200, {"Content-Type": "text/html"}, b"<script>x</script>"),
        "/g": (200, {"Content-Type": "text/plain", "Content-Encoding": "gzip"}, gzip.compress(b"packed")),
    }  # fmt: skip
    code, word = site.index(tmp_path, "/a", "/b.md", "/c", "/e", "/f", "/g")
    assert code == 0, word
    assert (word["documents"], word["empty"]) == (5, [f"{site.url}/f"])
    chunks = {chunk.text: chunk for chunk in Index.load(tmp_path / "k/one").chunks}
    assert set(chunks) == {"保証は三年", "Oil it.", "one", "The valve is red.", "packed"}
    assert (chunks["保証は三年"].title, chunks["Oil it."].heading) == ("題", "Care")
    assert chunks["one"].metadata == {"url": f"{site.url}/c"}


@pytest.mark.parametrize(
    ("page", "code", "says"),
    [
        ((404, {}, b""), ExitCode.DATA, "is answered with 404"),
        ((200, {"Content-Type": "image/png"}, b"x"), ExitCode.DATA, "is image/png, and text/html"),
        ((302, {"Location": "/x"}, b""), ExitCode.DATA, "is redirected more than 5 times"),
        ((302, {"Location": "http://example.com/"}, b""), ExitCode.DATA, "leads to http://example.com/, which is no"),
        ((302, {"Location": "https://169.254.169.254/latest"}, b""), ExitCode.DATA, "is at 169.254.169.254, inside"),
        ((302, {"Location": "file:///etc/passwd"}, b""), ExitCode.DATA, "is no https"),
        ((200, {"Content-Type": "text/plain", "Content-Encoding": "gzip"}, gzip.compress(b"0" * (65 << 20))),
         ExitCode.DATA, "more than 64 MiB"),
        ((200, {"Content-Type": "text/plain; charset=utf-9"}, b"x"), ExitCode.DATA, "is not utf-9"),
        ((200, {"Content-Type": "application/pdf"}, b"%PDF"), ExitCode.DATA, "is damaged"),
    ],
)  # fmt: skip
def test_what_can_not_be_had_is_told_by_its_url(
    site: Site, tmp_path: Path, page: Any, code: ExitCode, says: str
) -> None:
    site.pages = {"/x": page}
    ended, word = site.index(tmp_path, "/x")
    assert (ended, says in word["problem"], "/x" in word["problem"]) == (code, True, True), word


def test_what_may_pass_by_is_tried_again_and_ends(site: Site, tmp_path: Path) -> None:
    site.pages, site.asked = {"/x": (503, {}, b"")}, []
    ended, word = site.index(tmp_path, "/x")
    assert (ended, "503" in word["problem"], site.asked) == (ExitCode.INTERNAL, True, ["/x", "/x"])
    site.pages = {"/x": (200, {"Content-Type": "text/plain", "X-Silent": "1"}, b"x")}
    ended, word = site.index(tmp_path, "/x")
    assert (ended, "has not ended in 5 s" in word["problem"]) == (ExitCode.INTERNAL, True), word


def test_nothing_inside_is_asked_unless_it_is_allowed(site: Site, tmp_path: Path) -> None:
    """Neither by name nor by address."""
    site.pages, site.asked = {"/x": (200, {"Content-Type": "text/plain"}, b"x")}, []
    for url in ("/x", site.url.replace("localhost", "127.0.0.1") + "/x"):
        code, word = site.index(tmp_path, url, allowed=["10.0.0.0/8"])
        assert (code, "inside; add its network to allowedNetworks" in word["problem"]) == (ExitCode.DATA, True), word
    assert not site.asked


@pytest.mark.parametrize(
    ("address", "free"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("127.0.0.1", False), ("10.96.0.1", False), ("0.0.0.0", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("192.168.1.1", False), ("224.0.0.1", False), ("::1", False),
        ("fe80::1", False), ("fd00::1", False), ("::ffff:127.0.0.1", False), ("::ffff:8.8.8.8", True),
        ("64:ff9b::7f00:1", False), ("64:ff9b::808:808", True), ("2001:0:53aa:64c::80ff:fffe", False),
        ("2002:7f00:1::", False), ("255.255.255.255", False), ("::", False),
    ],
)  # fmt: skip
def test_which_addresses_are_outside(address: str, free: bool) -> None:
    assert outside(ip_address(address), []) == free
    assert outside(ip_address(address), [ip_network("0.0.0.0/0"), ip_network("::/0")])


@pytest.mark.parametrize("url", ["https://127.1/", "https://2130706433/", "https://0x7f.1/", "https://[::1]/"])
async def test_an_address_in_other_clothes_is_no_way_in(url: str) -> None:
    with pytest.raises(FetchError, match=r"inside|not a canonical"):
        await fetched(url, [])


def test_what_is_no_url() -> None:
    with pytest.raises(FetchError, match="no https"):
        check("https:///x", "https:///x", [])


def pdf_of(*pages: str, password: str = "", title: str = "") -> bytes:
    """By hand, as pypdf writes no text."""
    kids = " ".join(f"{4 + 2 * at} 0 R" for at in range(len(pages)))
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
               "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]  # fmt: skip
    for at, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" if text else ""
        resources = "/Resources << /Font << /F1 3 0 R >> >>"
        objects += [f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * at} 0 R {resources} >>",
                    f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream"]  # fmt: skip
    body, places = "%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{text}\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF"
    made = f"{body}xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{end}".encode()
    if not (password or title):
        return made
    writer = PdfWriter(clone_from=PdfReader(BytesIO(made)))
    if title:
        writer.add_metadata({"/Title": title})
    if password:
        writer.encrypt("" if password == "none" else password, "owner", algorithm="RC4-128")
    into = BytesIO()
    writer.write(into)
    return into.getvalue()


def test_a_pdf_has_the_text_of_its_pages() -> None:
    read = document(pdf_of("One.", "", "Two.", title="Manual"), "a.pdf")
    assert (read.title, read.text) == ("Manual", "One.\n\nTwo.")
    assert document(pdf_of("One.", password="none"), "a.pdf").text == "One.", "locked against changes alone"
    assert document(pdf_of(""), "a.pdf").text == "", "a scan"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (pdf_of("One.", password="s3cret"), "is encrypted; write it without"),
        (pdf_of("One.")[:200], "is damaged"),
        (b"%PDF-1.7", "is damaged"),
        (b"\0" * 1000, "is damaged"),
    ],
)
def test_a_pdf_that_can_not_be_read_is_told(data: bytes, says: str) -> None:
    with pytest.raises(DataError, match=f"a.pdf: {says}"):
        document(data, "a.pdf")


def test_a_pdf_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "MOST_PAGES", 1)
    with pytest.raises(DataError, match="has 2 pages"):
        document(pdf_of("One.", "Two."), "a.pdf")
    monkeypatch.setattr(pdf, "MOST_CHARACTERS", 3)
    with pytest.raises(DataError, match="more than 3 characters"):
        document(pdf_of("One."), "a.pdf")
    monkeypatch.setattr(pdf, "MOST_SECONDS", 1)
    monkeypatch.setattr(pdf, "pages", forever)
    with pytest.raises(DataError, match="takes more than 1 s"):
        document(pdf_of("One."), "a.pdf")


def forever(*_: object) -> Iterator[str]:
    """Slowly: what has no end must not fill the memory of who tests it."""
    while True:
        time.sleep(0.05)
        yield ""
