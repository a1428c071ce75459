"""Identities, namespaces and connections for the tests of the kube room."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from llm_operator.kube.client import Client
from llm_operator.kube.login import Connection
from tests.cluster.control_plane import ControlPlane

_numbers = itertools.count(1)


@pytest.fixture
def namespace(api_server: ControlPlane) -> str:
    """A namespace of this test's own; whatever it leaves there is of no concern to others."""
    name = f"kube-{next(_numbers)}"
    api_server.kubectl("create", "namespace", name)
    return name


@pytest.fixture
def log_in(api_server: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the connections that are opened from now on those of this user; by default an administrator."""

    def as_user(name: str, group: str = "system:masters") -> None:
        kubeconfig = tmp_path / f"{name}.kubeconfig"
        api_server.authority.issue(name, f"/O={group}/CN={name}")
        api_server.authority.kubeconfig(name, api_server.server, kubeconfig)
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))

    return as_user


@pytest.fixture
async def connection(log_in: Callable[[str], None]) -> Connection:
    log_in("kube-tests")
    return await Connection.open()


@pytest.fixture
async def client(connection: Connection) -> AsyncIterator[Client]:
    client = Client(connection)
    yield client
    await client.close()
