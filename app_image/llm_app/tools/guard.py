"""Connections of tools: none to an address inside of the cluster, of a node or of this pod unless it is allowed."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

import aiohttp

from llm_app.addresses import Network, outside

CONNECT_SECONDS = 10.0


class BlockedAddressError(OSError):
    """An address that a tool may not reach."""


def session(allowed: Sequence[str]) -> aiohttp.ClientSession:
    """Every connection of it is checked when it is made, by the address itself: after DNS, and for redirects too."""
    networks = [ipaddress.ip_network(one) for one in allowed]

    def checked(info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        refuse(address[0], networks)
        return socket.socket(family=family, type=kind, proto=protocol)

    connector = aiohttp.TCPConnector(limit=64, socket_factory=checked)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
    return aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())


def refuse(text: str, allowed: Sequence[Network]) -> None:
    """Raises BlockedAddressError."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if not outside(address, allowed):
        raise BlockedAddressError(f"{address} is no public address; allowedAddresses of the tool does not have it")


def blocked(error: BaseException | None) -> BlockedAddressError | None:
    """The one from which an error of a client came, if any."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        if isinstance(error, BlockedAddressError):
            return error
        if isinstance(error, BaseExceptionGroup):
            found = [one for one in map(blocked, error.exceptions) if one]
            if found:
                return found[0]
        inner = getattr(error, "os_error", None)
        error = (
            inner if isinstance(inner, BaseException) and inner not in seen else error.__cause__ or error.__context__
        )
    return None
