"""Where the demo runs: on the cluster that it brings up on this machine, or on one that is there."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from demo.kubectl import Kubectl
from demo.run import Images

NAMESPACE = "llm-demo"


@dataclass(frozen=True)
class Setting:
    kubectl: Kubectl
    helm: Path
    images: Images
    storage_class: str | None  # None: the cluster's default class
    built_in: bool

    @property
    def environment(self) -> str:
        """What a user types so that kubectl talks to this cluster."""
        folder = self.kubectl.binary.parent
        return f"export KUBECONFIG={self.kubectl.kubeconfig} PATH={folder}:$PATH"


def built_in() -> Setting:
    """Two nodes on this machine, as the end-to-end tests use them."""
    from tests.cluster import cluster

    cluster.up()
    names = cluster.push_images()
    plane, binaries = cluster.control_plane(), cluster.binaries()
    kubectl = Kubectl(binaries / "kubectl", plane.kubeconfig, NAMESPACE)
    images = Images(names["llm-operator"], names["llm-trainer"], names["llm-app"])
    return Setting(kubectl, binaries / "helm", images, "shared", built_in=True)


def own(kubeconfig: Path, registry: str, storage_class: str | None) -> Setting:
    """A cluster of the user's: its kubectl and helm are those of this machine, its images go into its registry."""
    from tests.cluster import images
    from tests.cluster.build import ensure

    tools = {name: shutil.which(name) for name in ("kubectl", "helm")}
    if missing := [name for name, path in tools.items() if path is None]:
        raise SystemExit(f"{' and '.join(missing)} must be installed to use a cluster of your own")
    ensure("images")
    local = {name: images.tagged(name) for name in images.IMAGES}
    names = {name: image.replace("localhost", registry, 1) for name, image in local.items()}
    images.push({local[name]: names[name] for name in names})
    kubectl = Kubectl(Path(tools["kubectl"] or ""), kubeconfig, NAMESPACE)
    ours = Images(names["llm-operator"], names["llm-trainer"], names["llm-app"])
    return Setting(kubectl, Path(tools["helm"] or ""), ours, storage_class, built_in=False)
