"""Which of this host's addresses and interfaces leads to another host (Linux)."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress

_SIOCGIFADDR = 0x8915


def address_towards(host: str, port: int) -> str:
    """This host's address on the way to `host`; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))
        return str(probe.getsockname()[0])


def is_local_address(host: str) -> bool:
    """Whether `host`, a name or an address, is this host: whether one can listen there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def interface_of(address: str) -> str | None:
    """The name of the interface that has `address`, such as `eth0`."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it has no address
                request = struct.pack("256s", name.encode()[:15])
                found = socket.inet_ntoa(fcntl.ioctl(probe, _SIOCGIFADDR, request)[20:24])
                if found == address:
                    return name
    return None


def choose_interface(master: str, port: int) -> None:
    """Let gloo and NCCL use the interface that leads to the first rank, unless the environment names one."""
    name = interface_of(address_towards(master, port))
    if name is not None:
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(variable, name)
