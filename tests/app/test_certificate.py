"""A server that speaks HTTPS: by the certificate of its Secret, and by the next one."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path

import pytest
from aiohttp import web

from llm_app.certificate import Certificate


def pair(folder: Path, name: str, kind: str = "rsa") -> None:
    algorithm = ["rsa:2048"] if kind == "rsa" else ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", *algorithm, "-nodes", "-days", "2", "-subj", f"/CN={name}",
         "-keyout", folder / "tls.key", "-out", folder / "tls.crt"],
        check=True, capture_output=True,
    )  # fmt: skip


def subject(certificate: bytes) -> str:
    command = ["openssl", "x509", "-inform", "der", "-noout", "-subject"]
    told = subprocess.run(command, input=certificate, capture_output=True, check=True)
    return told.stdout.decode().strip().rpartition("=")[2].strip()


async def served(port: int, *, rsa_alone: bool = False) -> str:
    """The name in the certificate that a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if rsa_alone:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("aRSA")
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"200" in await reader.readline()
    writer.close()
    return subject(shown)


async def answering(_: web.Request) -> web.Response:
    return web.Response(text="x")


async def test_new_connections_get_the_newest_certificate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair(tmp_path, "first.test")
    certificate = Certificate(tmp_path)
    application = web.Application()
    application.add_routes([web.get("/", answering)])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificate.context).start()
    port = runner.addresses[0][1]
    try:
        assert await served(port) == "first.test"
        assert not certificate.look()
        pair(tmp_path, "second.test", "ec")
        assert certificate.look()
        assert await served(port) == "second.test"
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await served(port, rsa_alone=True)  # the key before it is gone
        for content in ("no certificate", (tmp_path / "tls.key").read_text()):
            (tmp_path / "tls.crt").write_text(content)
            assert not certificate.look()
            assert await served(port) == "second.test"
        (tmp_path / "tls.crt").unlink()
        assert not certificate.look()
        assert await served(port) == "second.test"
    finally:
        await runner.cleanup()
    assert "the certificate before it is used" in caplog.text


@pytest.mark.parametrize("content", ["", "x"])
def test_no_pair_is_refused_at_the_start(tmp_path: Path, content: str) -> None:
    with pytest.raises(ValueError, match=r"spec\.tls: its Secret needs tls\.crt and tls\.key"):
        Certificate(tmp_path)
    pair(tmp_path, "a.test")
    (tmp_path / "tls.key").write_text(content)
    with pytest.raises(ValueError, match="are no certificate and its key without a password"):
        Certificate(tmp_path)
