"""Hosts on one machine: network namespaces with names of their own, joined by cables (veth) to a bridge.

host-a 10.77.3.1  ═══════  10.77.3.2 host-b        both see the same files
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

TMP_OF_HOST = "/run/recaster-host"
"""What is written here stays on its host."""

_NAMES = Path("/etc/netns")  # `ip netns exec` lays what is there over /etc


class NotAllowedError(Exception):
    """This machine lets us make no network namespaces; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One namespace; a command with `prefix` before it runs there."""

    name: str
    namespace: str
    address: str

    @property
    def prefix(self) -> list[str]:
        # A disk of its own below TMP_OF_HOST only; all else is the folder that hosts share.
        own = f"/run/{self.namespace}"
        script = f'hostname {self.name} && mount --bind {own} {TMP_OF_HOST} && exec "$@"'
        return ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "sh", "-c", script, "sh"]

    def start(self, command: list[str], log: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Start `command` there, with its output at the end of `log`."""
        with log.open("ab") as output:
            return subprocess.Popen(
                [*self.prefix, *command],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **environment},
            )

    def processes(self) -> list[psutil.Process]:
        """All that runs there."""
        done = subprocess.run(
            ["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=True
        )
        return [psutil.Process(int(line)) for line in done.stdout.split() if psutil.pid_exists(int(line))]

    def kill_all(self) -> None:
        """kill -9 for everything there, as when the host loses its power."""
        for process in self.processes():
            process.kill()


@contextmanager
def joined_hosts(count: int = 2) -> Iterator[list[Host]]:
    """Hosts that reach each other over a bridge; gone afterwards with all that runs in them.

    Raises:
        NotAllowedError: no right to, or no `ip`.
    """
    mark = os.getpid() % 10000
    hosts = [
        Host(
            name=f"host-{'abcdefgh'[number]}",
            namespace=f"rc{mark}-{number}",
            address=f"10.77.{mark % 250}.{number + 1}",
        )
        for number in range(count)
    ]
    bridge = f"rcb{mark}"
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("link", "set", bridge, "up")
        for number, host in enumerate(hosts):
            cable = f"rcv{mark}-{number}"
            for folder in (TMP_OF_HOST, f"/run/{host.namespace}"):
                Path(folder).mkdir(exist_ok=True)
            _write_names(host, hosts)
            _ip("netns", "add", host.namespace)
            _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
            _ip("link", "set", cable, "master", bridge, "up")
            _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
            _ip("-n", host.namespace, "link", "set", "eth0", "up")
            _ip("-n", host.namespace, "link", "set", "lo", "up")
        yield hosts
    finally:
        for host in hosts:
            if Path("/run/netns", host.namespace).exists():
                host.kill_all()
                _ip("netns", "delete", host.namespace)
            shutil.rmtree(f"/run/{host.namespace}", ignore_errors=True)
            shutil.rmtree(_NAMES / host.namespace, ignore_errors=True)
        if Path("/sys/class/net", bridge).exists():
            _ip("link", "delete", bridge)


def _write_names(host: Host, hosts: list[Host]) -> None:
    """Each host knows the others' names by file; asking a name server that is not there takes long."""
    folder = _NAMES / host.namespace
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["127.0.0.1 localhost", *(f"{other.address} {other.name}" for other in hosts)]
    (folder / "hosts").write_text("\n".join(lines) + "\n")
    (folder / "nsswitch.conf").write_text("hosts: files\n")


def _ip(*arguments: str) -> None:
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise NotAllowedError("there is no `ip` (package iproute2)") from error
    if done.returncode:
        raise NotAllowedError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
