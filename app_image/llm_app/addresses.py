"""Which addresses are of the internet: all others are of the cluster, of a node or of the pod itself. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # NAT64 (RFC 6052): any address of IPv4 in the last 32 bits


def outside(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether it is of the internet, or of a network that is allowed."""
    if (inner := within(address)) is not None:
        return outside(inner, allowed)
    if any(address in network for network in allowed):
        return True
    return address.is_global and not address.is_multicast


def within(address: Address) -> ipaddress.IPv4Address | None:
    """The address of IPv4 to which one of IPv6 leads, if it is such a one."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
