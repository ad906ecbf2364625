"""Published ports: who has them, and the sockets that keep them from everybody else on the host.

A reservation is a bound socket; the container's shim holds it. TCP: bound, not listening, so that a port
whose firewall element is gone refuses at once; SO_REUSEADDR while binding only (connections in TIME_WAIT do
not count), then off, so that nobody can bind or listen beside it. UDP: a filter drops what is not translated.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from hawse_agent.errors import Conflict, HostRefused, InputError, NotSupported
from hawse_agent.linux import bpf
from hawse_agent.network.ruleset import anywhere
from hawse_agent.spec.container import PortMap, Protocol
from hawse_agent.spec.records import PortRecord


def wanted(ports: Sequence[PortMap], exposed: Iterable[str]) -> tuple[PortMap, ...]:
    """What is published by name, and for `publish_all` what else the container exposes."""
    named = {(port.protocol, port.container_port) for port in ports}
    found = list(ports)
    for protocol, number in dict.fromkeys(pair for text in exposed for pair in _exposed(text)):
        if (protocol, number) not in named:
            found.append(PortMap(container_port=number, protocol=protocol))
    return tuple(found)


def reserve(
    container_id: str,
    address: str,
    ports: Sequence[PortMap],
    taken: Sequence[PortRecord],
    name_of: Callable[[str], str],
) -> tuple[list[PortRecord], list[int]]:
    """The host ports, decided, and the fds that keep them. All or none: raises Conflict, with the name of
    the container that has the port."""
    records: list[PortRecord] = []
    with contextlib.ExitStack() as undo:
        sockets: list[socket.socket] = []
        for port in ports:
            check(port)
            sock = undo.enter_context(_first_free(port, [*taken, *records], name_of))
            sockets.append(sock)
            records.append(
                PortRecord(
                    container=container_id,
                    host_ip="" if anywhere(port.host_ip) else port.host_ip,
                    host_port=sock.getsockname()[1],
                    protocol=port.protocol,
                    container_ip=address,
                    container_port=port.container_port,
                )
            )
        undo.pop_all()
    return records, [sock.detach() for sock in sockets]


def check(port: PortMap) -> None:
    if not 0 < port.container_port < 65536 or not 0 <= port.host_port < 65536:
        raise InputError(f"invalid port {port.host_port}:{port.container_port}")
    if port.host_port_last and not 0 < port.host_port <= port.host_port_last < 65536:
        raise InputError(f"invalid range of ports {port.host_port}-{port.host_port_last}")
    if ":" in port.host_ip:
        raise NotSupported(f"publishing on {port.host_ip}: host addresses are IPv4")
    try:
        socket.inet_pton(socket.AF_INET, port.host_ip or "0.0.0.0")
    except OSError as error:
        raise InputError(f"invalid host address {port.host_ip} of a published port") from error


def _first_free(port: PortMap, taken: Sequence[PortRecord], name_of: Callable[[str], str]) -> socket.socket:
    """Of its range, if it has one. Raises the Conflict of the last."""
    last = max(port.host_port, port.host_port_last)
    for number in range(port.host_port, last + 1):
        candidate = replace(port, host_port=number)
        try:
            _require_free(candidate, taken, name_of)
            return _bound(candidate)
        except Conflict:
            if number == last:
                raise
    raise AssertionError("a range has at least one port")


def _require_free(port: PortMap, taken: Iterable[PortRecord], name_of: Callable[[str], str]) -> None:
    if not port.host_port:
        return
    for other in taken:
        same = (other.protocol, other.host_port) == (port.protocol, port.host_port)
        if same and (anywhere(port.host_ip) or anywhere(other.host_ip) or port.host_ip == other.host_ip):
            raise Conflict(
                f"Bind for {port.host_ip or '0.0.0.0'}:{port.host_port} failed: port is already allocated",
                hint=f"container {name_of(other.container)} has it",
            )


def _bound(port: PortMap) -> socket.socket:
    udp = port.protocol == "udp"
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    try:
        if udp:
            bpf.drop_everything(sock)
        elif port.host_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((port.host_ip or "0.0.0.0", port.host_port))
        if not udp and port.host_port:
            sock.listen(0)  # on Linux 6.1 it takes this to keep others from binding, too
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            sock.shutdown(socket.SHUT_RD)  # listens no longer; still bound
    except OSError as error:
        sock.close()
        where = f"{port.host_ip or '0.0.0.0'}:{port.host_port}/{port.protocol}"
        if error.errno == errno.EADDRINUSE:
            raise Conflict(f"failed to bind host port {where}: address already in use") from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise InputError(
                f"failed to bind host port {where}: cannot assign requested address",
                hint=f"{port.host_ip} is no address of this host",
            ) from error
        raise HostRefused(f"failed to bind host port {where}: {os.strerror(error.errno or 0)}") from error
    return sock


def _exposed(text: str) -> Iterable[tuple[Protocol, int]]:
    numbers, _, protocol = text.partition("/")
    first, _, last = numbers.partition("-")
    try:
        span = range(int(first), int(last or first) + 1)
    except ValueError as error:
        raise InputError(f"invalid exposed port {text}") from error
    if not 0 < span.start < span.stop <= 65536:
        raise InputError(f"invalid exposed port {text}: expected 1 to 65535")
    if protocol in ("", "tcp"):
        return [("tcp", number) for number in span]
    if protocol == "udp":
        return [("udp", number) for number in span]
    raise NotSupported(f"exposed port {text}: publishing knows tcp and udp")
