"""Build both images with buildah; a change of our own code rebuilds one small layer."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.cluster.settings import CACHE, REPOSITORY

STORE = CACHE / "images"
BASE = "localhost/debian:bookworm"
# image → Containerfile and the sources that its content depends on
IMAGES = {
    "llm-operator": (
        "operator/Containerfile",
        [
            "operator",
            "requirements/operator.txt",
            "trainer_image/llm_trainer/config",
            "trainer_image/llm_trainer/protocol.py",
        ],
    ),
    "llm-trainer": ("trainer_image/Containerfile", ["trainer_image", "requirements"]),
}


def environment() -> dict[str, str]:
    """Buildah's storage under our cache, and no need for a user namespace."""
    for folder in ("tmp", "debs"):
        (STORE / folder).mkdir(parents=True, exist_ok=True)
    storage = STORE / "storage.conf"
    storage.write_text(f'[storage]\ndriver="overlay"\nrunroot="{STORE}/runroot"\ngraphroot="{STORE}/storage"\n')
    return os.environ | {
        "CONTAINERS_STORAGE_CONF": str(storage),
        "TMPDIR": str(STORE / "tmp"),
        "BUILDAH_ISOLATION": "chroot",
    }


def buildah(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["buildah", *arguments], env=environment(), text=True, capture_output=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"buildah {arguments[0]}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


def make_base() -> None:
    """A minimal Debian from its packages, where no registry has one."""
    if buildah("inspect", "--type", "image", BASE, check=False).returncode == 0:
        return
    root = STORE / "tmp" / "debian"
    shutil.rmtree(root, ignore_errors=True)
    subprocess.run(
        [
            "debootstrap", "--variant=minbase", f"--cache-dir={STORE / 'debs'}", "--include=ca-certificates",
            "bookworm", str(root),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    for folder in (
        "var/cache/apt/archives",
        "var/lib/apt/lists",
        "var/log",
        "usr/share/doc",
        "usr/share/man",
        "usr/share/locale",
    ):
        shutil.rmtree(root / folder)
        (root / folder).mkdir()
    (root / "etc/machine-id").write_text("")
    container = buildah("from", "scratch").stdout.strip()
    buildah("copy", "-q", container, str(root), "/")
    buildah("config", "--env", "LANG=C.UTF-8", container)
    buildah("commit", "-q", "--rm", container, BASE)
    shutil.rmtree(root)


def content_hash(sources: list[str]) -> str:
    """Twelve hex digits over the files that an image is made of."""
    digest = hashlib.sha256()
    for source in sources:
        path = REPOSITORY / source
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and p.suffix != ".pyc")
        for file in files:
            digest.update(f"{file.relative_to(REPOSITORY)}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def build(name: str) -> str:
    """Build one image if its content changed; its local name with the content's hash as tag."""
    containerfile, sources = IMAGES[name]
    tagged = f"localhost/{name}:{content_hash(sources)}"
    if buildah("inspect", "--type", "image", tagged, check=False).returncode:
        make_base()
        buildah(
            "bud", "--layers", "--build-arg", f"BASE_IMAGE={BASE}", "--build-arg", "ACCELERATOR=cpu",
            # the machine's own certificates: a proxy in front of the package registries is trusted in the build too
            "-v", "/etc/ssl/certs:/etc/ssl/certs:ro",
            "-f", containerfile, "-t", tagged, "-t", f"localhost/{name}:dev", str(REPOSITORY),
        )  # fmt: skip
    return tagged


def build_static(program: Path, name: str) -> str:
    """An image that holds one static program and runs it."""
    container = buildah("from", "scratch").stdout.strip()
    buildah("copy", "-q", container, str(program), f"/{program.name}")
    buildah("config", "--entrypoint", f'["/{program.name}"]', container)
    buildah("commit", "-q", "--rm", container, name)
    return name


def push(local: str, registry: str, *, insecure: bool = False) -> str:
    """Push an image; the name by which a cluster pulls it."""
    target = f"{registry}/{local.removeprefix('localhost/')}"
    tls = ["--tls-verify=false"] if insecure else []
    buildah("push", "-q", *tls, local, f"docker://{target}")
    return target
