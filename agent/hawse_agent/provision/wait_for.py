"""wait_for: until a port answers or falls silent, or a file appears or goes. Changes nothing."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hawse_agent.errors import InputError, TaskFailed
from hawse_agent.linux import files
from hawse_agent.provision import users
from hawse_agent.provision.file import expand
from hawse_agent.provision.item import Context, ItemPlan, Tell
from hawse_agent.provision.users import Account
from hawse_agent.spec.task import WaitForArguments

_GONE = ("stopped", "absent")
_IDLE_STATES = {"06", "0A"}
"""TIME_WAIT and LISTEN of /proc/net/tcp: no connection that anybody still uses."""


def plan(args: WaitForArguments, context: Context) -> ItemPlan:
    """What holds already need not be waited for. Asked again when a task before it changes something."""
    _check(args)
    waits = args.port is not None or bool(args.path)
    if waits and not args.delay:
        quick = replace(args, connect_timeout=min(args.connect_timeout, 1.0))
        if _checker(quick, users.account(context.user))():
            return ItemPlan(changed=False)
    return ItemPlan(changed=False, unknown=True, reason=f"waits for {_what(args)}")


def apply(args: WaitForArguments, context: Context, tell: Tell) -> dict[str, Any]:
    _check(args)
    user = users.account(context.user)
    started = time.monotonic()
    time.sleep(args.delay)
    if args.port is None and not args.path:
        time.sleep(max(0.0, args.timeout - args.delay))
        return _result(args, started)
    # The kernel tells nobody when a port of some host opens, so this asks again and again.
    check = _checker(args, user)
    while not check():
        left = started + args.timeout - time.monotonic()
        if left <= 0:
            message = args.msg or f"Timeout when waiting for {_what(args)}"
            raise TaskFailed(message, result={"changed": False, "elapsed": _elapsed(started)})
        time.sleep(min(args.sleep, left))
    return _result(args, started)


def _check(args: WaitForArguments) -> None:
    if args.port is not None and args.path:
        raise InputError("'port' and 'path' cannot be waited for in one task")
    if args.port is not None and not 0 < args.port < 65536:
        raise InputError(f"not a port: {args.port}")
    if args.state == "drained" and args.port is None:
        raise InputError("state drained needs a port")
    for name in ("timeout", "delay", "sleep", "connect_timeout"):
        if getattr(args, name) < 0:
            raise InputError(f"{name!r} cannot be negative")
    if args.search_regex:
        if args.state == "drained" or (args.port is None and not args.path):
            raise InputError("'search_regex' needs a path, or a port that is to be started")
        try:
            re.compile(args.search_regex)
        except re.error as error:
            raise InputError(f"'search_regex' is no regular expression: {error}") from None


def _checker(args: WaitForArguments, user: Account) -> Callable[[], bool]:
    """What tells whether it is so now."""
    gone = args.state in _GONE
    pattern = re.compile(args.search_regex.encode(), re.MULTILINE) if args.search_regex else None
    if args.path:
        path = expand(args.path, user.home)
        return lambda: users.as_user(user, lambda: _there(path, pattern)) != gone
    assert args.port is not None
    port = args.port
    if args.state == "drained":
        addresses = _addresses(args.host, port)
        return lambda: not _connections(addresses, port)
    return lambda: _answers(args.host, port, args.connect_timeout, None if gone else pattern) != gone


def _there(path: str, pattern: re.Pattern[bytes] | None) -> bool:
    if pattern is None:
        return os.path.exists(path)
    try:
        with files.open_regular(path, follow=True) as file:
            return pattern.search(file.read()) is not None
    except FileNotFoundError:
        return False


def _answers(host: str, port: int, timeout: float, pattern: re.Pattern[bytes] | None) -> bool:
    try:
        with socket.create_connection((host, port), timeout=timeout) as peer:
            return True if pattern is None else _says(peer, pattern, timeout)
    except OSError:  # refused, silent, or not known yet: it does not answer now
        return False


def _says(peer: socket.socket, pattern: re.Pattern[bytes], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    heard = b""
    while (left := deadline - time.monotonic()) > 0:
        peer.settimeout(left)
        data = peer.recv(4096)
        heard = (heard + data)[-65536:]
        if pattern.search(heard):
            return True
        if not data:
            return False
    return False


def _addresses(host: str, port: int) -> frozenset[str]:
    """As /proc/net/tcp writes them; empty means any."""
    found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    return frozenset() if found & {"0.0.0.0", "::"} else frozenset(_as_written(name) for name in found)


def _as_written(address: str) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address.partition("%")[0])
    words = [packed[i : i + 4] for i in range(0, len(packed), 4)]
    return "".join(f"{int.from_bytes(word, 'little'):08X}" for word in words)


def _connections(addresses: frozenset[str], port: int) -> bool:
    """Whether somebody is connected to this port here."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError), open(table, encoding="ascii") as lines:
            next(lines)
            for line in lines:
                local, state = line.split()[1], line.split()[3]
                address, _, number = local.rpartition(":")
                if int(number, 16) != port or state in _IDLE_STATES:
                    continue
                if not addresses or address in addresses or address[24:] in addresses:
                    return True
    return False


def _what(args: WaitForArguments) -> str:
    if args.port is None and not args.path:
        return f"{args.timeout:g} s to pass"
    where = args.path or f"{args.host}:{args.port}"
    state = args.state if args.state in (*_GONE, "drained") else "search string" if args.search_regex else ""
    return f"{where} ({state})" if state else where


def _elapsed(started: float) -> int:
    return int(time.monotonic() - started)


def _result(args: WaitForArguments, started: float) -> dict[str, Any]:
    return {
        "changed": False,
        "elapsed": _elapsed(started),
        "state": args.state,
        "port": args.port,
        "path": args.path or None,
        "search_regex": args.search_regex or None,
    }
