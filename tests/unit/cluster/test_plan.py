"""What is built, in which order, and what is not built again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.cluster import binaries, build
from tests.cluster.steps import Step, startable


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(binaries, "CACHE", tmp_path)
    monkeypatch.setattr(binaries, "WORK", tmp_path / "go")
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    return tmp_path


def rounds(steps: list[Step]) -> list[list[str]]:
    """The names of the steps that can run at the same time, if each took as long as the others."""
    left, result = list(steps), []
    while left:
        now = startable(left, {step.name for step in left})
        assert now, f"these wait for each other: {[step.name for step in left]}"
        result.append([step.name for step in now])
        left = [step for step in left if step not in now]
    return result


def test_programs_compile_one_after_the_other_while_the_next_modules_download(cache: Path) -> None:
    first, second, *_, last = rounds(binaries.missing())
    assert first == ["modules of containerd"]
    assert second == ["modules of kubernetes", "containerd"]
    assert last == ["remove Go's caches"]


def test_programs_that_are_there_are_not_built_again(cache: Path) -> None:
    binaries.folder().mkdir()
    (binaries.folder() / "complete").touch()
    assert binaries.missing() == []
    binaries.WORK.mkdir()
    assert [step.name for step in binaries.missing()] == ["remove Go's caches"], "interrupted while it removed them"


def test_every_program_is_pinned_by_its_module() -> None:
    for module, programs in binaries.PROGRAMS.items():
        pins = (binaries.MODULES / module / "go.mod").read_text()
        for package in programs.values():
            assert package.startswith(".") or package in pins, f"{module}/go.mod has no tool {package}"


def test_kubernetes_is_stamped_with_the_version_that_is_pinned() -> None:
    pins = (binaries.MODULES / "kubernetes/go.mod").read_text()
    version = re.search(r"k8s\.io/kubernetes (v\S+)", pins)
    assert version
    assert f"gitVersion={version[1]} " in binaries.linker_flags("kubernetes")
    assert "gitVersion" not in binaries.linker_flags("etcd")


def test_images_and_environment_wait_for_the_machines_packages_and_go_does_not(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "packages", lambda: [Step(build.PACKAGES, ["true"])])
    parts = {
        "environment": lambda: [Step("environment", ["true"])],
        "images": lambda: [Step("image", ["true"])],
        "binaries": binaries.missing,
        "s3-gateway": list,
    }
    monkeypatch.setattr(build, "PARTS", parts)
    first, second, *_ = rounds(build.plan(()))
    assert first == [build.PACKAGES, "modules of containerd"]
    assert {"environment", "image", "containerd"} <= set(second)
    assert [step.name for step in build.plan(["environment"])] == ["environment"], "it needs no package of the cluster"
