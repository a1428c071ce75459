"""The server's certificate: what the launcher gives vLLM, and what it does when the Secret changes."""

from __future__ import annotations

import http.server
import json
import os
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from llm_operator.serving.probes import probes
from llm_server import launch
from llm_server.certificates import Certificates
from llm_server.first_token import no_answer
from llm_server.last_words import CONFIGURATION
from llm_server.watch import server_of
from tests.unit.serving.test_probes import probe

NAMES = ("tls.crt", "tls.key")


def pair(folder: Path, name: str = "chat-serving.team.svc", *more: str) -> Path:
    folder.mkdir(exist_ok=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2",
         "-subj", f"/CN={name}", "-keyout", folder / "tls.key", "-out", folder / "tls.crt", *(more or ["-nodes"])],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


def mounted(secret: Path, content: Path) -> None:
    """As a kubelet puts other files behind the same names."""
    secret.mkdir(exist_ok=True)
    (secret / "..new").symlink_to(content)
    (secret / "..new").rename(secret / "..data")
    for name in NAMES:
        if not (secret / name).is_symlink():
            (secret / name).symlink_to(f"..data/{name}")


def given(secret: Path) -> list[str]:
    return [f"--ssl-certfile={secret}/tls.crt", f"--ssl-keyfile={secret}/tls.key", "--enable-ssl-refresh"]


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLM_SERVER_TLS", str(tmp_path / "copies"))
    return tmp_path / "copies"


def test_each_renewal_is_written_to_the_same_files(tmp_path: Path, copies: Path) -> None:
    """VLLM watches the files: other files behind their names it would see once."""
    secret = tmp_path / "secret"
    mounted(secret, pair(tmp_path / "0"))
    found = Certificates.of(given(secret))
    assert found
    assert found.renew() is None
    files = {name: (copies / name).stat().st_ino for name in NAMES}
    assert {(copies / name).stat().st_mode & 0o777 for name in NAMES} == {0o600}
    for number in ("1", "2"):
        mounted(secret, pair(tmp_path / number))
        assert found.renew() is None
        assert [(copies / name).read_bytes() for name in NAMES] == [(secret / name).read_bytes() for name in NAMES]
    assert {name: (copies / name).stat().st_ino for name in NAMES} == files


def test_what_is_no_pair_is_refused_and_the_one_before_stays(tmp_path: Path, copies: Path) -> None:
    secret, good = tmp_path / "secret", pair(tmp_path / "good")
    mounted(secret, good)
    found = Certificates.of(given(secret))
    assert found
    assert found.renew() is None
    other = pair(tmp_path / "other")
    (other / "tls.key").write_bytes((good / "tls.key").read_bytes())
    locked = pair(tmp_path / "locked", "x", "-passout", "pass:s3cret")
    (tmp_path / "empty").mkdir()
    for content, says in ((other, "no certificate and its key"), (locked, "password"), (tmp_path / "empty", "tls.crt")):
        mounted(secret, content)
        assert says in (found.renew() or ""), content
        assert (copies / "tls.crt").read_bytes() == (good / "tls.crt").read_bytes()


def test_without_a_certificate_the_server_speaks_http() -> None:
    assert Certificates.of(["/m", "--port=1"]) is None


def test_the_launcher_refuses_a_secret_that_no_server_could_use(
    tmp_path: Path, copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, said = tmp_path / "model", tmp_path / "termination"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    monkeypatch.setenv("LLM_TERMINATION_MESSAGE", str(said))
    secret = pair(tmp_path / "secret")
    arguments, _ = launch.prepared([str(folder), *given(secret)])
    assert arguments[-2:] == [f"--ssl-certfile={copies}/tls.crt", f"--ssl-keyfile={copies}/tls.key"], "the last holds"
    (secret / "tls.key").write_text("none")
    assert launch.main([str(folder), *given(secret)]) == CONFIGURATION
    assert "spec.tls: tls.crt and tls.key are no certificate and its key" in json.loads(said.read_text())["message"]


def test_probes_and_launcher_ask_by_https(tmp_path: Path) -> None:
    """The certificate is of the Service's name, and nobody has signed it."""
    folder = pair(tmp_path / "pair")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        port = httpd.server_port
        tls = server_of(["/m", "--host=127.0.0.1", f"--port={port}", *given(folder)], os.environ)
        assert no_answer(tls, 10) is None
        assert no_answer(tls._replace(tls=False), 10) is not None
        assert probe(port, tls=True).returncode == 0
        assert probe(port).returncode == 1
        httpd.shutdown()
    found = probes("::", 8000, "chat", 60, tls=True)
    assert {found[name]["httpGet"]["scheme"] for name in ("readinessProbe", "livenessProbe")} == {"HTTPS"}
