"""Build the images with buildah; a change of our own code rebuilds one small layer."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from tests.cluster import steps
from tests.cluster.processes import run
from tests.cluster.settings import CACHE, LOGS, REPOSITORY
from tests.cluster.steps import Step, in_order

STORE = CACHE / "images"
DEBIAN = """
umount "$1/proc" 2> /dev/null || true  # of an interrupted run
rm -rf "$1"
debootstrap --variant=minbase --cache-dir="$2" --include=ca-certificates bookworm "$1"
for folder in var/cache/apt/archives var/lib/apt/lists var/log usr/share/man usr/share/locale; do
  rm -rf "$1/$folder"
  mkdir "$1/$folder"
done
find "$1/usr/share/doc" -type f ! -name copyright -delete  # Debian's licences stay with what is under them
> "$1/etc/machine-id"
container=$(buildah from scratch)
buildah copy -q "$container" "$1" /
buildah config --env LANG=C.UTF-8 "$container"
buildah commit -q --rm "$container" "$3"
rm -rf "$1"
"""
BASE = f"localhost/debian:bookworm-{hashlib.sha256(DEBIAN.encode()).hexdigest()[:12]}"
BILL = "/opt/llm/sbom.cdx.json"
OF_ALL = ["tools/image", "requirements/build.txt", "LICENSE", "NOTICE"]
# Of an app, what the operator reads: how its pods are configured, and what they would send to a model.
OF_PROMPTS = (
    "config", "prompt", "words", "chunks", "keyword", "store", "documents", "away", "index", "last_word", "requests",
    "agent_prompt", "team", "tools/__init__", "tools/base", "tools/offers", "tools/openapi", "tools/openapi_schema",
    "tools/plain_yaml", "tools/schema",
)  # fmt: skip
# image → Containerfile and the sources that its content depends on
IMAGES = {
    "llm-operator": (
        "operator/Containerfile",
        [
            *OF_ALL,
            "operator",
            "requirements/operator.txt",
            "trainer_image/llm_trainer/config",
            "trainer_image/llm_trainer/protocol.py",
            "trainer_image/llm_server/arguments.py",
            "trainer_image/llm_server/first_token.py",
            "trainer_image/llm_server/lora.json",
            "app_image/llm_app/__init__.py",
            *(f"app_image/llm_app/{module}.py" for module in OF_PROMPTS),
        ],
    ),
    "llm-app": (
        "app_image/Containerfile",
        [
            *OF_ALL,
            "app_image",
            "requirements/app.txt",
            "trainer_image/llm_trainer/config",
            "trainer_image/llm_trainer/protocol.py",
        ],
    ),
    "llm-trainer": (
        "trainer_image/Containerfile",
        [
            *OF_ALL,
            "trainer_image",
            "requirements/torch-cpu.txt",
            "requirements/serve-cpu.txt",
            "requirements/evaluation.txt",
            "requirements/trackers.txt",
        ],
    ),
}


def storage() -> dict[str, str]:
    """Buildah's storage under our cache, and no need for a user namespace."""
    for folder in ("tmp", "debs"):
        (STORE / folder).mkdir(parents=True, exist_ok=True)
    file = STORE / "storage.conf"
    file.write_text(f'[storage]\ndriver="overlay"\nrunroot="{STORE}/runroot"\ngraphroot="{STORE}/storage"\n')
    return {"CONTAINERS_STORAGE_CONF": str(file), "TMPDIR": str(STORE / "tmp"), "BUILDAH_ISOLATION": "chroot"}


def buildah(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run("buildah", *arguments, check=check, **storage())


def make_base() -> Step:
    """A minimal Debian from its packages, where no registry has one."""
    command = ["bash", "-euc", DEBIAN, "debian", STORE / "tmp/debian", STORE / "debs", BASE]
    return Step("image debian", command, environment=storage())


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


def tagged(name: str) -> str:
    """The local name of an image: its tag is the content's hash."""
    return f"localhost/{name}:{content_hash(IMAGES[name][1])}"


def exists(name: str) -> bool:
    found = shutil.which("buildah") is not None
    return found and buildah("inspect", "--type", "image", name, check=False).returncode == 0


def missing() -> list[Step]:
    """What is left to build, one after the other: the images share layers."""
    names = [name for name in IMAGES if not exists(tagged(name))]
    base = [make_base()] if names and not exists(BASE) else []
    return in_order([*base, *(build(name) for name in names)])


def build(name: str) -> Step:
    return build_as(name, f"image {name}", [tagged(name), f"localhost/{name}:dev"])


def build_with_trackers() -> tuple[str, Step]:
    """The trainer's image with the layer that no other test needs: its name, and what builds it."""
    name = f"{tagged('llm-trainer')}-trackers"
    return name, build_as("llm-trainer", "image llm-trainer with trackers", [name], "TRACKERS=with")


def build_as(name: str, title: str, tags: list[str], *arguments: str) -> Step:
    told = ("ACCELERATOR=cpu", f"BASE_IMAGE={BASE}", *arguments)
    command = [
        "buildah", "bud", "--layers", *(word for one in told for word in ("--build-arg", one)),
        # the machine's own certificates: a proxy in front of the package registries is trusted in the build too
        "-v", "/etc/ssl/certs:/etc/ssl/certs:ro",
        "-f", IMAGES[name][0], *(word for tag in tags for word in ("-t", tag)), REPOSITORY,
    ]  # fmt: skip
    return Step(title, command, folder=REPOSITORY, environment=storage(), telling=r"STEP \d+/\d+|^COMMIT")


def bills(folder: Path) -> None:
    """Take the bill of materials out of each image into ``folder``, as NAME.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in IMAGES:
        container = buildah("from", tagged(name)).stdout.strip()
        try:
            (folder / f"{name}.json").write_text(buildah("run", container, "cat", BILL).stdout)
        finally:
            buildah("rm", container)


def build_static(program: Path, name: str) -> str:
    """An image that holds one static program and runs it."""
    container = buildah("from", "scratch").stdout.strip()
    buildah("copy", "-q", container, str(program), f"/{program.name}")
    buildah("config", "--entrypoint", f'["/{program.name}"]', container)
    buildah("commit", "-q", "--rm", container, name)
    return name


def push(names: dict[str, str], *, insecure: bool = False) -> None:
    """Push images to registries, telling of it: local name → the name by which a cluster pulls it."""
    # The built-in cluster pulls zstd, which takes half of gzip's time; not every registry has it.
    options = ["--tls-verify=false", "--compression-format=zstd", "--compression-level=1"] if insecure else []
    pushes = [
        Step(f"push {target}", ["buildah", "push", *options, local, f"docker://{target}"], environment=storage())
        for local, target in names.items()
    ]
    steps.run(in_order(pushes), LOGS)
