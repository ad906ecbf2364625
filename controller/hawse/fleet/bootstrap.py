"""Brings the agent onto a host, keeps it current, takes it away.

A host that has its agent costs one exec: `hawse-agent dial` is simply tried. Only when there is none, or an
older one, is Python looked for and the bundle sent. An agent that is newer than ours is never replaced unless
`downgrade` says so; containers do not notice any of it.
"""

from __future__ import annotations

import errno
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hawse.fleet import remote
from hawse.fleet.bundle import PROTOCOL, Bundle
from hawse.fleet.client import AgentClient, Identity
from hawse.fleet.stream import DialStream, NoAgent, Preamble, Stream, read_preamble
from hawse.ssh.connection import Completed, Connection
from hawse_agent.errors import HawseError, HostRefused, OutOfSpace, ProtocolError, Unreachable

LIB = "/var/lib/hawse"
HOME = f"{LIB}/agent"
LINK = "/usr/local/sbin/hawse-agent"
DIAL = f"exec {LINK} dial"
_INSTALL_TIMEOUT = 600.0
_NOT_THERE = (126, 127)

Say = Callable[[str], None]


def _quiet(text: str) -> None:
    """Progress that nobody wants to see."""


@dataclass(frozen=True, kw_only=True)
class Installed:
    """What bootstrap did: libraries that it installed, warnings for the person."""

    libraries: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unit: bool = False


def connect_agent(
    connection: Connection,
    bundle: Callable[[], Bundle],
    *,
    python: str = "",
    identity: Identity | None = None,
    timeout: float = 30.0,
    say: Say = _quiet,
    downgrade: bool = False,
) -> AgentClient:
    """A client of the host's agent, which is installed or upgraded first where needed."""
    try:
        preamble, stream = dial(connection, timeout)
    except NoAgent as error:
        if error.code not in _NOT_THERE:
            find_python(connection, python)  # says more than the agent does
            raise _broken(connection, error) from error
        say("installing the agent")
        _activate(connection, install(connection, bundle(), python=python), say)
        preamble, stream = _dial_installed(connection, timeout)
    if should_replace(preamble, bundle(), downgrade=downgrade):
        say(f"upgrading the agent from {preamble.version}")
        preamble, stream = upgrade(
            connection, bundle(), stream, preamble, python=python, timeout=timeout, say=say
        )
    if preamble.protocol != PROTOCOL:
        stream.close()
        raise HostRefused(
            f"{connection.name}: the agent speaks protocol {preamble.protocol} (version {preamble.version}),"
            f" this hawse protocol {PROTOCOL}",
            hint="use a hawse as new as the agent",
        )
    return AgentClient(
        _opener(connection, timeout),
        name=connection.name,
        identity=identity,
        stream=stream,
        preamble=preamble,
    )


def existing_agent(
    connection: Connection, *, identity: Identity | None = None, timeout: float = 30.0
) -> AgentClient | None:
    """A client of the agent as it is; None where there is none. Changes nothing on the host."""
    try:
        preamble, stream = dial(connection, timeout)
    except NoAgent as error:
        if error.code in _NOT_THERE:
            return None
        raise _broken(connection, error) from error
    return AgentClient(
        _opener(connection, timeout),
        name=connection.name,
        identity=identity,
        stream=stream,
        preamble=preamble,
    )


def dial(connection: Connection, timeout: float) -> tuple[Preamble, DialStream]:
    """Runs `hawse-agent dial`; raises `NoAgent` when it ends without presenting itself."""
    process = connection.start(DIAL, root=True)
    try:
        return read_preamble(process, timeout, connection.name)
    except BaseException:
        process.close()
        raise


def should_replace(found: Preamble, ours: Bundle, *, downgrade: bool = False) -> bool:
    """Whether our bundle goes in place of the agent that answered."""
    if found.bundle in ("", ours.digest):  # run from a checkout by hand: not ours to replace
        return False
    return downgrade or _numbers(ours.version) >= _numbers(found.version)


def install(connection: Connection, bundle: Bundle, *, python: str = "") -> Installed:
    """Sends, verifies, unpacks and switches to a bundle; the old one keeps working until the switch."""
    interpreter = find_python(connection, python)
    script = remote.INSTALL.format(
        marker=remote.MARKER,
        digest=bundle.digest,
        home=HOME,
        link=LINK,
        unit=remote.UNIT,
        packages=remote.PACKAGES,
    )
    data = bundle.path.read_bytes()
    done = _python(connection, interpreter, script, data)
    answer = _answer(connection, done)
    if "error" in answer:
        kind: type[HostRefused] = OutOfSpace if answer.get("errno") == errno.ENOSPC else HostRefused
        raise kind(f"{connection.name}: the agent could not be installed: {answer['error']}")
    return Installed(
        libraries=tuple(answer["libraries"]), warnings=tuple(answer["warnings"]), unit=answer["unit"]
    )


def upgrade(
    connection: Connection,
    bundle: Bundle,
    stream: Stream,
    preamble: Preamble,
    *,
    python: str = "",
    timeout: float = 30.0,
    say: Say = _quiet,
) -> tuple[Preamble, DialStream]:
    """Installs our bundle and changes the daemon; containers stay."""
    with AgentClient(
        _opener(connection, timeout), name=connection.name, stream=stream, preamble=preamble
    ) as old:
        installed = install(connection, bundle, python=python)
        if not installed.unit:
            old.stop_daemon()
    _activate(connection, installed, say)
    return _dial_installed(connection, timeout)


def find_python(connection: Connection, wanted: str = "") -> str:
    """The absolute path of a Python 3.11 or newer with its standard library, by which the agent will run."""
    chosen = "" if wanted.startswith("auto") else wanted
    check = remote.CHECK.format(modules=remote.MODULES, marker=remote.MARKER)
    names = (chosen,) if chosen else remote.CANDIDATES
    script = remote.PROBE.format(
        check=shlex.quote(check), candidates=" ".join(map(shlex.quote, names)), marker=remote.MARKER
    )
    done = connection.run(f"exec /bin/sh -c {shlex.quote(script)}", timeout=60.0)
    lines = [
        line.split(remote.MARKER, 1)[1].split() for line in done.text.splitlines() if remote.MARKER in line
    ]
    if ["end"] not in lines:
        raise Unreachable(
            f"{connection.name}: the login shell of {connection.user} runs no commands: "
            f"{done.errors or done.text.strip()[-200:] or f'exit status {done.code}'}",
            stage="python",
        )
    found = [line for line in lines if len(line) == 3]
    for path, version, missing in found:
        if _numbers(version) >= (3, 11) and missing == "-":
            return path
    if not found:
        reason = f"there is no {chosen}" if chosen else "there is no Python"
    else:
        reason = "; ".join(
            f"{path} is Python {version}" + (f" without {missing}" if missing != "-" else "")
            for path, version, missing in {entry[0]: entry for entry in found}.values()
        )
    raise Unreachable(
        f"{connection.name}: the agent needs Python 3.11 or newer with its standard library: {reason}",
        stage="python",
        hint="install one, and name it as ansible_python_interpreter when it is not in the PATH",
    )


def doctor(connection: Connection) -> dict[str, Any]:
    """The agent's own checks of its host."""
    done = connection.run(f"{LINK} doctor --json", root=True, timeout=60.0)
    if done.code in _NOT_THERE:
        raise HostRefused(f"{connection.name}: no agent is installed", hint="hawse host bootstrap")
    start = done.text.find("{")
    try:
        answer = json.loads(done.text[start:]) if start >= 0 else None
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ProtocolError(f"{connection.name}: doctor did not answer: {done.errors or done.text[-200:]}")
    return answer


def remove(connection: Connection, *, volumes: bool = False, python: str = "") -> tuple[str, ...]:
    """Takes containers and agent away, volumes and backups only when asked; gives the paths that are left."""
    done = connection.run(f"{LINK} reset{' --volumes' if volumes else ''}", root=True, timeout=300.0)
    if done.code not in (0, *_NOT_THERE):
        raise HostRefused(f"{connection.name}: the agent could not be reset: {done.errors}")
    interpreter = find_python(connection, python)
    keep = () if volumes else ("volumes", "backups")
    script = remote.REMOVE.format(marker=remote.MARKER, lib=LIB, link=LINK, keep=keep)
    answer = _answer(connection, _python(connection, interpreter, script, b""))
    return tuple(answer["left"])


def _activate(connection: Connection, installed: Installed, say: Say) -> None:
    """Under systemd the daemon belongs to its unit from the start; elsewhere `dial` starts it."""
    for library in installed.libraries:
        say(f"installed {library}")
    for warning in installed.warnings:
        say(warning)
    if installed.unit:
        done = connection.run("systemctl restart hawse-agent.service", root=True, timeout=_INSTALL_TIMEOUT)
        if done.code != 0:
            raise HostRefused(f"{connection.name}: the agent's service does not start: {done.errors}")


def _dial_installed(connection: Connection, timeout: float) -> tuple[Preamble, DialStream]:
    try:
        return dial(connection, timeout)
    except NoAgent as error:
        raise _broken(connection, error) from error


def _opener(connection: Connection, timeout: float) -> Callable[[], Stream]:
    return lambda: _dial_installed(connection, timeout)[1]


def _python(connection: Connection, interpreter: str, script: str, data: bytes) -> Completed:
    command = f"exec {shlex.quote(interpreter)} -I -S -c {shlex.quote(script)}"
    return connection.run(command, root=True, input=data, timeout=_INSTALL_TIMEOUT)


def _answer(connection: Connection, done: Completed) -> dict[str, Any]:
    for line in done.text.splitlines():
        if remote.MARKER in line:
            answer: dict[str, Any] = json.loads(line.split(remote.MARKER, 1)[1])
            return answer
    reason = done.errors.splitlines()[-1] if done.errors else f"exit status {done.code}"
    raise Unreachable(f"{connection.name}: the agent could not be installed: {reason}", stage="agent")


def _broken(connection: Connection, error: NoAgent) -> HawseError:
    lines = error.output.splitlines() or [f"exit status {error.code}"]
    own = [line for line in lines if line.startswith("hawse-agent")]  # else a traceback: its last line
    reason = own[0].removeprefix("hawse-agent:").strip() if own else lines[-1]
    return Unreachable(
        f"{connection.name}: the agent does not start: {reason}",
        stage="agent",
        hint="hawse host doctor",
    )


def _numbers(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.split("."):
        digits = "".join(character for character in part if character.isdecimal())
        numbers.append(int(digits or 0))
    return tuple(numbers)
