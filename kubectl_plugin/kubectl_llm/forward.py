"""A way to the port of a serving or an app from this machine, by `kubectl port-forward`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

from kubectl_llm.kubectl import ExitCode, Kubectl, Manifest, PluginError, refusal, running, word_of
from kubectl_llm.status import cause

FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ->")


class Server(NamedTuple):
    """``host``: its name in the cluster, which its certificate has. ``word``: serving or app, for people."""

    scheme: str
    host: str
    port: int
    word: str = "serving"

    @property
    def service(self) -> str:
        return self.host.split(".")[0]


def server(manifest: Manifest) -> Server:
    status, word = manifest.get("status") or {}, word_of(manifest["kind"])
    name = f"{word} {manifest['metadata']['name']}"
    if not status.get("url") or not status.get("readyReplicas"):
        raise PluginError(f"{name} answers nobody yet: {cause(status, ('Ready',)) or 'no operator has looked at it'}")
    url = urlsplit(status["url"])
    if url.scheme not in ("http", "https") or not url.hostname:
        raise PluginError(f"{name} tells no URL that can be read: {status['url']!r}")
    return Server(url.scheme, url.hostname, url.port or (443 if url.scheme == "https" else 80), word)


@contextmanager
def forwarded(kubectl: Kubectl, to: Server) -> Iterator[int]:
    """A port of this machine's loopback, free until now."""
    with running(
        kubectl.command("port-forward", f"service/{to.service}", f":{to.port}", "--address=127.0.0.1")
    ) as process:
        for line in process.stdout or ():
            if found := FORWARDING.search(line):
                yield int(found[1])
                return
        errors = process.stderr.read() if process.stderr else ""
        raise refusal(errors) if errors else PluginError("kubectl port-forward said nothing", ExitCode.UNREACHABLE)
