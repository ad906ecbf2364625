"""Do something in the network namespace of a container, in this thread."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from hawse_agent.linux.namespace import CLONE_NEWNET, setns
from hawse_agent.network import libnftables
from hawse_agent.network.dns import ADDRESS
from hawse_agent.network.dns_client import redirect_text


@contextlib.contextmanager
def entered(netns_fd: int) -> Iterator[None]:
    """Sockets made inside belong to that namespace for ever; other threads are not moved."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(netns_fd, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(own, CLONE_NEWNET)
    finally:
        os.close(own)


def resolver_sockets() -> tuple[socket.socket, socket.socket]:
    """In a namespace whose loopback is up: our resolver's udp and tcp socket, with port 53 led there."""
    with contextlib.ExitStack() as undo:
        udp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        tcp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        udp.bind((ADDRESS, 0))
        tcp.bind((ADDRESS, 0))
        tcp.listen(16)
        libnftables.run(redirect_text(udp.getsockname()[1], tcp.getsockname()[1]))
        undo.pop_all()
    return udp, tcp
