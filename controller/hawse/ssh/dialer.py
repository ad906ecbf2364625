"""Opens TCP connections: every address of both families, a timeout for each stage.

Addresses are tried in turn, 250 ms apart, the families alternating (RFC 8305); the first to answer wins, so
that a dead IPv6 route costs a quarter of a second and not a timeout. Knows nothing of SSH.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import threading
import time
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from hawse_agent.errors import Unreachable

STAGGER = 0.25
_USER_TIMEOUT_MS = 20_000

Address = tuple[socket.AddressFamily, tuple[Any, ...]]


def dial(host: str, port: int, *, resolve_timeout: float, connect_timeout: float) -> socket.socket:
    """A connected, blocking socket; raises `Unreachable` with stage dns or tcp."""
    return connect(resolve(host, port, resolve_timeout), host, port, connect_timeout)


def resolve(host: str, port: int, timeout: float) -> list[Address]:
    """Addresses of a host in the order to try them. The resolver has no timeout of its own."""
    answer: list[Any] = []

    def ask() -> None:
        try:
            answer.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answer.append(error)

    if _is_literal(host):
        ask()
    else:
        asking = threading.Thread(target=ask, name=f"resolve {host}", daemon=True)
        asking.start()
        asking.join(timeout)
    if not answer:
        raise Unreachable(f"the name {host} was not resolved within {timeout:g} s", stage="dns")
    if isinstance(answer[0], Exception):
        reason = getattr(answer[0], "strerror", None) or str(answer[0])
        raise Unreachable(
            f"the name {host} does not resolve: {reason}",
            stage="dns",
            hint="check the name, or set ansible_host to an address",
        ) from answer[0]
    found = list(dict.fromkeys((entry[0], entry[4]) for entry in answer[0]))
    return _alternate(found)


def connect(addresses: Sequence[Address], host: str, port: int, timeout: float) -> socket.socket:
    """The first of these addresses that accepts a connection."""
    deadline = time.monotonic() + timeout
    waiting = list(addresses)
    failures: list[str] = []
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as losers:
        pending = 0
        while waiting or pending:
            if waiting:
                family, address = waiting.pop(0)
                attempt = losers.enter_context(contextlib.closing(socket.socket(family, socket.SOCK_STREAM)))
                attempt.setblocking(False)
                error = attempt.connect_ex(address)
                if error in (0, errno.EINPROGRESS):
                    selector.register(attempt, selectors.EVENT_WRITE, address)
                    pending += 1
                else:
                    failures.append(f"{address[0]}: {os.strerror(error)}")
                    continue
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            for key, _ in selector.select(min(remaining, STAGGER) if waiting else remaining):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                selector.unregister(sock)
                pending -= 1
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error == 0:
                    return _tuned(socket.socket(fileno=sock.detach()))
                failures.append(f"{key.data[0]}: {os.strerror(error)}")
        if pending or waiting:
            failures.append(f"no answer within {timeout:g} s")
    raise Unreachable(f"cannot connect to {host} port {port}: {'; '.join(failures)}", stage="tcp")


def _tuned(sock: socket.socket) -> socket.socket:
    sock.setblocking(True)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # A peer that vanished is noticed by the kernel: idle by probes, with unsent data by the user timeout.
    for name, value in (
        ("TCP_KEEPIDLE", 15),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", _USER_TIMEOUT_MS),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock


def _is_literal(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return True
    return False


def _alternate(addresses: list[Address]) -> list[Address]:
    """The resolver's first family first, then one of each in turn."""
    if not addresses:
        return []
    first = [entry for entry in addresses if entry[0] == addresses[0][0]]
    second = [entry for entry in addresses if entry[0] != addresses[0][0]]
    return [entry for pair in zip_longest(first, second) for entry in pair if entry is not None]
