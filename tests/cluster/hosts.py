"""Several hosts in one machine: network namespaces with addresses of their own, where allowed."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NAMES = Path("/etc/netns")
"""What ``ip netns exec`` lays over ``/etc``."""
_NUMBERS = itertools.count()
"""The kernel takes its time to let go of what was deleted, so no name is used twice."""


@dataclass(frozen=True)
class Host:
    """A host with an IP address; ``enter`` goes before a command that is to run there."""

    ip: str
    enter: tuple[str, ...] = ()
    port: str = ""
    """Its end of the cable, at the bridge."""
    bridge: str = ""

    def cut(self) -> None:
        """No packet reaches it or leaves it from now on, and nobody is told."""
        _ip(f"link set {self.port} nomaster")

    def heal(self) -> None:
        _ip(f"link set {self.port} master {self.bridge}")


HERE = Host("127.0.0.1")


@contextlib.contextmanager
def hosts(n: int, *, last_lags_s: float = 0.0) -> Iterator[list[Host]]:
    """``n`` hosts: this one ``n`` times, or, with ``MEDAUG_NETNS=1`` and the right to make them,
    network namespaces on one bridge, which this process reaches, too.

    What the last one sends or is sent takes ``last_lags_s`` to arrive.
    """
    if os.environ.get("MEDAUG_NETNS") != "1":
        yield [HERE] * n
        return
    number = 1000 * (os.getpid() % 16_000) + next(_NUMBERS) % 1000
    name = f"m{number}"  # an interface's name has at most 15 characters
    net = f"10.{64 + number // 250 % 64}.{number % 250}"
    made = [
        Host(f"{net}.{i + 1}", ("ip", "netns", "exec", f"{name}-{i}"), f"{name}v{i}", name)
        for i in range(n)
    ]
    try:
        with contextlib.ExitStack() as cables:
            try:
                _ip(f"link add {name} type bridge")
                _ip(f"addr add {net}.254/24 dev {name}")
                _ip(f"link set {name} up")
                for i, host in enumerate(made):
                    space = f"{name}-{i}"
                    _names_are_unknown(space)
                    _ip(f"netns add {space}")
                    if last_lags_s and host is made[-1]:
                        cables.enter_context(_slow_cable(host.port, space, last_lags_s))
                    else:
                        _ip(f"link add {host.port} type veth peer name eth0 netns {space}")
                    _ip(f"link set {host.port} master {name} up")
                    _ip(f"-n {space} addr add {host.ip}/24 dev eth0")
                    _ip(f"-n {space} link set eth0 up")
                    _ip(f"-n {space} link set lo up")
                    _ip(f"-n {space} route add default via {net}.254")  # Ray looks which is out
            except (OSError, subprocess.CalledProcessError):
                made = [HERE] * n
            yield made
    finally:
        if shutil.which("ip"):
            for i in range(n):
                subprocess.run(["ip", "netns", "del", f"{name}-{i}"], capture_output=True)
                shutil.rmtree(NAMES / f"{name}-{i}", ignore_errors=True)
            subprocess.run(["ip", "link", "del", name], capture_output=True)


@contextlib.contextmanager
def _slow_cable(port: str, namespace: str, lag_s: float) -> Iterator[None]:
    """From ``port`` here to ``eth0`` there."""
    script = Path(__file__).with_name("lag.py")
    command = [sys.executable, str(script), port, f"{port}e", str(lag_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as cable:
        try:
            assert cable.stdout is not None
            if cable.stdout.readline() != "up\n":
                raise OSError("no such interfaces here")
            _ip(f"link set {port}e netns {namespace} name eth0")
            yield
        finally:
            cable.kill()


def _names_are_unknown(namespace: str) -> None:
    """Asking for a host's name, as torch does, fails at once: nothing but the hosts can be reached
    from here, and a resolver would wait for its server for longer than ranks do for each other."""
    (NAMES / namespace).mkdir(parents=True)
    (NAMES / namespace / "resolv.conf").write_text("nameserver 127.0.0.1\n")


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)
