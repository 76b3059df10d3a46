"""Hosts on one machine: a network namespace for each rank, wires to one switch, shaped to a rate.

namespace 0  eth0 10.77.0.1 ──veth──┐
namespace 1  eth0 10.77.0.2 ──veth──┤ bridge          a token bucket on both ends of each wire
…                                   ┘
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_BRIDGE = "rcst-switch"
_NAME, _WIRE = "rcst-host-", "rcst-wire-"
_BURST, _LATENCY = "64kb", "50ms"  # a queue of 50 ms, as a switch's port has it


def address(rank: int) -> str:
    return f"10.77.0.{rank + 1}"


def host(rank: int) -> str:
    return f"{_NAME}{rank}"


@contextmanager
def network(ranks: int, *, rate: str | None) -> Iterator[None]:
    """Hosts 0 to `ranks - 1`; `rate` as tc writes it (`100mbit`), None for an unshaped wire.

    Raises:
        CalledProcessError: not root, or the kernel lacks veth, bridges or the token bucket.
    """
    _remove()
    try:
        _run("ip", "link", "add", _BRIDGE, "type", "bridge")
        _run("ip", "link", "set", _BRIDGE, "up")
        for rank in range(ranks):
            _add_host(rank, rate)
        yield
    finally:
        _remove()


def _add_host(rank: int, rate: str | None) -> None:
    name, wire = host(rank), f"{_WIRE}{rank}"
    inside = ["ip", "netns", "exec", name]
    _run("ip", "netns", "add", name)
    _run("ip", "link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", name)
    _run("ip", "link", "set", wire, "master", _BRIDGE, "up")
    _run(*inside, "ip", "address", "add", f"{address(rank)}/24", "dev", "eth0")
    _run(*inside, "ip", "link", "set", "eth0", "up")
    _run(*inside, "ip", "link", "set", "lo", "up")
    if rate:
        shape = ["root", "tbf", "rate", rate, "burst", _BURST, "latency", _LATENCY]
        _run(*inside, "tc", "qdisc", "add", "dev", "eth0", *shape)
        _run("tc", "qdisc", "add", "dev", wire, *shape)


def _remove() -> None:
    """Take away what this or a killed run left; a namespace may outlive its name, so wires go first."""
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    for line in links.splitlines():
        name = line.split()[0].split("@")[0]
        if name.startswith(_WIRE) or name == _BRIDGE:
            _run("ip", "link", "delete", name)
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        if line.startswith(_NAME):
            _run("ip", "netns", "delete", line.split()[0])


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def enter(rank: int, command: Sequence[str]) -> list[str]:
    """`command`, run on host `rank`."""
    return ["ip", "netns", "exec", host(rank), *command]
