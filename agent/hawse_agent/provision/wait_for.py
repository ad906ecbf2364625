"""wait_for: until a port answers, a file is there, a text is in it; or until they are not."""

from __future__ import annotations

import os
import re
import socket
import time

from hawse_agent.errors import InputError, NotSupported, TaskFailed
from hawse_agent.provision.module import UNCHANGED, Context, ItemPlan, Result, Tell
from hawse_agent.spec.task import WaitForArguments

LONGEST_ANSWER = 1 << 16
"""Bytes of a port's greeting that are searched."""


def plan(args: WaitForArguments, context: Context) -> ItemPlan:
    """It changes nothing; whether it will succeed is known only when it holds already."""
    _check(args)
    if (args.port is not None or args.path) and _holds(args):
        return UNCHANGED
    return ItemPlan(changed=False, unknown=True, reason=f"waits up to {args.timeout:g} s for {_what(args)}")


def apply(args: WaitForArguments, context: Context, tell: Tell) -> Result:
    _check(args)
    begin = time.monotonic()
    if args.port is None and not args.path:
        time.sleep(args.timeout)
        return {"changed": False, "elapsed": int(args.timeout)}
    if args.delay:
        time.sleep(args.delay)
    tell(f"waiting for {_what(args)}")
    while not _holds(args):
        if time.monotonic() - begin >= args.timeout:
            elapsed = int(time.monotonic() - begin)
            raise TaskFailed(
                args.msg or f"timeout after {args.timeout:g} s waiting for {_what(args)}",
                result={"elapsed": elapsed},
            )
        time.sleep(min(args.sleep, 0.1) if time.monotonic() - begin < 2 else args.sleep)
    return {
        "changed": False,
        "elapsed": int(time.monotonic() - begin),
        "state": args.state,
        "port": args.port,
        "path": args.path or None,
    }


def _check(args: WaitForArguments) -> None:
    if args.port is not None and args.path:
        raise InputError("wait_for: port and path exclude each other")
    if args.state == "drained":
        raise NotSupported("wait_for: state drained is not supported")
    if args.search_regex:
        try:
            re.compile(args.search_regex)
        except re.error as error:
            raise InputError(f"wait_for: search_regex: {error}") from None


def _what(args: WaitForArguments) -> str:
    if args.path:
        what = args.path
    elif args.port is not None:
        what = f"{args.host}:{args.port}"
    else:
        return "time to pass"
    text = f" to have {args.search_regex!r}" if args.search_regex else ""
    gone = args.state in ("stopped", "absent")
    return f"{what}{text}{' to be gone' if gone else ''}"


def _holds(args: WaitForArguments) -> bool:
    there = _path_holds(args) if args.path else _port_holds(args)
    return there is not (args.state in ("stopped", "absent"))


def _path_holds(args: WaitForArguments) -> bool:
    if not args.search_regex:
        return os.path.exists(args.path)
    try:
        with open(args.path, "rb") as file:
            return re.search(args.search_regex.encode(), file.read(), re.MULTILINE) is not None
    except FileNotFoundError:
        return False


def _port_holds(args: WaitForArguments) -> bool:
    try:
        with socket.create_connection((args.host, args.port or 0), args.connect_timeout) as connection:
            if not args.search_regex:
                return True
            return _greeting_has(connection, args.search_regex.encode(), args.connect_timeout)
    except OSError:
        return False


def _greeting_has(connection: socket.socket, pattern: bytes, timeout: float) -> bool:
    connection.settimeout(timeout)
    data = b""
    while len(data) < LONGEST_ANSWER:
        piece = connection.recv(4096)
        if not piece:
            break
        data += piece
        if re.search(pattern, data, re.MULTILINE):
            return True
    return False
