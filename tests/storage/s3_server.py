"""versitygw on a folder, with keys, and TLS by an authority of its own: a real S3 server."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from obstore.store import S3Store

from tests.cluster import build, s3_gateway
from tests.cluster.pki import Authority

BUCKET = "corpora"


@contextmanager
def serving(folder: Path, host: str = "127.0.0.1", bucket: str = BUCKET) -> Iterator[dict[str, str]]:
    """What a Secret for its bucket holds, while it runs.

    ``folder``: an empty one; buckets are in `data`, and `access` tells of each request.
    """
    build.ensure("s3-gateway")
    pki = Authority(folder / "pki")
    pki.create()
    pki.issue("s3", "/CN=s3", f"DNS:localhost,IP:{host}")
    (folder / "data" / bucket).mkdir(parents=True)  # a folder there is a bucket
    with socket.create_server((host, 0)) as free:
        port = free.getsockname()[1]
    command: list[str | Path] = [
        s3_gateway.VERSITYGW.path, "--access", "reader", "--secret", "sesame-sesame", "--port", f"{host}:{port}",
        "--cert", pki.folder / "s3.crt", "--key", pki.folder / "s3.key", "--quiet", "--access-log",
        folder / "access", "posix", folder / "data",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while socket.socket().connect_ex((host, port)):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield {
            "AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "sesame-sesame", "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"https://{'localhost' if host == '127.0.0.1' else host}:{port}",
            "ca.crt": (pki.folder / "ca.crt").read_text(),
        }  # fmt: skip
    finally:
        process.terminate()
        process.wait(10)


def store(values: dict[str, str]) -> S3Store:
    return S3Store(
        BUCKET,
        config={
            "access_key_id": values["AWS_ACCESS_KEY_ID"], "secret_access_key": values["AWS_SECRET_ACCESS_KEY"],
            "endpoint": values["AWS_ENDPOINT_URL"], "region": values["AWS_REGION"],
        },
        client_options={"root_certificate": values["ca.crt"]},
    )  # fmt: skip
