"""Do something in the network namespace of a container, in this thread."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from hawse_agent.linux.namespace import CLONE_NEWNET, setns
from hawse_agent.network import libnftables
from hawse_agent.network.dns import ADDRESS

_TABLE = "hawse-dns"


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


def resolver_sockets(*, again: bool) -> tuple[socket.socket, socket.socket]:
    """In a namespace whose loopback is up: our resolver's udp and tcp socket, with port 53 led there.

    `again`: in place of earlier ones. Not for a new namespace, where the deletion would cost 15 ms.
    """
    with contextlib.ExitStack() as undo:
        udp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        tcp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        udp.bind((ADDRESS, 0))
        tcp.bind((ADDRESS, 0))
        tcp.listen(16)
        redirect = _redirect_text(udp.getsockname()[1], tcp.getsockname()[1])
        libnftables.run(f"add table ip {_TABLE}\ndelete table ip {_TABLE}\n{redirect}" if again else redirect)
        undo.pop_all()
    return udp, tcp


def _redirect_text(udp_port: int, tcp_port: int) -> str:
    return (
        f"table ip {_TABLE} {{\n    chain output {{\n"
        "        type nat hook output priority -100; policy accept;\n"
        f"        ip daddr {ADDRESS} udp dport 53 dnat to {ADDRESS}:{udp_port}\n"
        f"        ip daddr {ADDRESS} tcp dport 53 dnat to {ADDRESS}:{tcp_port}\n"
        "    }\n}\n"
    )
