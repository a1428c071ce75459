"""One certificate authority, and certificates and kubeconfigs for whoever talks to the API server."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.processes import run


@dataclass(frozen=True)
class Authority:
    folder: Path

    def create(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "ca.crt").exists():
            run(
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-days", "3650", "-subj", "/CN=test-ca",
                "-keyout", self.folder / "ca.key", "-out", self.folder / "ca.crt",
            )  # fmt: skip
        if not (self.folder / "sa.key").exists():  # signs service-account tokens
            run("openssl", "genrsa", "-out", self.folder / "sa.key", "2048")

    def issue(self, name: str, subject: str, alternative_names: str = "") -> None:
        """NAME.crt and NAME.key for a subject such as /O=system:masters/CN=admin."""
        certificate, key, request = (self.folder / f"{name}.{kind}" for kind in ("crt", "key", "csr"))
        if certificate.exists():
            return
        run(
            "openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", key, "-out", request, "-subj", subject,
        )  # fmt: skip
        extensions = self.folder / f"{name}.ext"
        lines = ["extendedKeyUsage=clientAuth,serverAuth"]
        if alternative_names:
            lines.append(f"subjectAltName={alternative_names}")
        extensions.write_text("\n".join(lines) + "\n")
        run(
            "openssl", "x509", "-req", "-in", request, "-CA", self.folder / "ca.crt", "-CAkey", self.folder / "ca.key",
            "-CAcreateserial", "-days", "3650", "-out", certificate, "-extfile", extensions,
        )  # fmt: skip

    def kubeconfig(self, name: str, server: str, target: Path) -> Path:
        """A self-contained kubeconfig for a name that has a certificate."""

        def data(file: str) -> str:
            return base64.b64encode((self.folder / file).read_bytes()).decode()

        cluster = {"server": server, "certificate-authority-data": data("ca.crt")}
        user = {"client-certificate-data": data(f"{name}.crt"), "client-key-data": data(f"{name}.key")}
        target.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "test",
                    "clusters": [{"name": "test", "cluster": cluster}],
                    "users": [{"name": name, "user": user}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
                }
            )
        )
        target.chmod(0o600)
        return target
