"""python -m tests.cluster VERB; see VERBS."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from tests.cluster import cluster, images


def build_images() -> None:
    for name in images.IMAGES:
        print(images.build(name), flush=True)


def push_images() -> None:
    for name in cluster.push_images().values():
        print(name, flush=True)


VERBS: dict[str, Callable[..., None]] = {
    "build": lambda: print(cluster.binaries()),
    "up": cluster.up,
    "down": cluster.down,
    "status": cluster.status,
    "stop-node": cluster.stop_node,
    "start-node": cluster.start_node,
    "images": build_images,
    "push-images": push_images,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("node", nargs="*", help="for stop-node and start-node")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("the test cluster needs root: it makes network namespaces, mounts and control groups")
    VERBS[options.verb](*options.node)


if __name__ == "__main__":
    main()
