"""python -m tests.cluster VERB; see VERBS."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tests.cluster import binaries, build, cluster, images


def push_images() -> None:
    for name in cluster.push_images().values():
        print(name, flush=True)


VERBS: dict[str, Callable[..., None]] = {
    "build": build.ensure,
    "folder": lambda: print(binaries.folder()),
    "up": cluster.up,
    "down": cluster.down,
    "status": cluster.status,
    "stop-node": cluster.stop_node,
    "start-node": cluster.start_node,
    "push-images": push_images,
    "bills": lambda folder: images.bills(Path(folder)),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("word", nargs="*", help=f"a node; for bills a folder; for build: {', '.join(build.PARTS)}")
    options = parser.parse_args()
    if os.geteuid() != 0 and options.word != ["environment"]:
        sys.exit("the test cluster needs root: it makes network namespaces, mounts and control groups")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda ended_by, _: sys.exit(128 + ended_by))  # what was started ends with us
    try:
        VERBS[options.verb](*options.word)
    except RuntimeError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted: the next run goes on from here")


if __name__ == "__main__":
    main()
