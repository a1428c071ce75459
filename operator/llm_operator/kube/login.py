"""Where the API server is and who we are: a kubeconfig or the pod's service account, read by the Kubernetes client."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.client_middlewares import ClientHandlerType
from kubernetes.aio import client as kubernetes
from kubernetes.aio import config as loaders
from kubernetes.aio.client.rest import RESTClientObject

from llm_operator import metrics

USER_AGENT = "llm-operator"
HOME_KUBECONFIG = Path("~/.kube/config").expanduser()


class LoginError(RuntimeError):
    """There is no API server to talk to."""


class Connection:
    """Makes sessions that send the current token with every request and count what is asked."""

    def __init__(self, configuration: Any) -> None:
        self._configuration = configuration
        self._ssl = RESTClientObject(configuration).ssl_context
        self.server: str = configuration.host

    @classmethod
    async def open(cls) -> Connection:
        """KUBECONFIG, then the pod's service account, then ~/.kube/config."""
        return cls(await _load())

    async def renew(self) -> None:
        """Reads the credentials again, after the API server refused them."""
        self._configuration = await _load()

    def session(self) -> aiohttp.ClientSession:
        """A session of its own; whoever asked for it closes it. Proxies of the environment are for other traffic."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._ssl, limit=0),
            headers={"User-Agent": USER_AGENT},
            middlewares=[self._authorize],
            proxy=self._configuration.proxy,
            trust_env=False,
        )

    async def _authorize(self, request: aiohttp.ClientRequest, send: ClientHandlerType) -> aiohttp.ClientResponse:
        # The loader of the service account reads the token's file again every minute: tokens live for an hour.
        token = await self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if token:
            request.headers["Authorization"] = token
        verb = "watch" if request.url.query.get("watch") else request.method.lower()
        code = 0
        try:
            response = await send(request)
            code = response.status
        finally:
            metrics.API_REQUESTS.labels(verb, code).inc()
        return response


async def _load() -> Any:
    configuration = kubernetes.Configuration()
    try:
        if path := os.environ.get("KUBECONFIG"):
            await loaders.load_kube_config(path, client_configuration=configuration, persist_config=False)
        elif os.environ.get("KUBERNETES_SERVICE_HOST"):
            loaders.load_incluster_config(configuration)
        elif HOME_KUBECONFIG.exists():
            await loaders.load_kube_config(
                str(HOME_KUBECONFIG), client_configuration=configuration, persist_config=False
            )
        else:
            raise LoginError("no cluster: set KUBECONFIG, or run in a pod with a service account")
    except loaders.ConfigException as error:
        raise LoginError(f"the credentials can't be read: {error}") from error
    return configuration
