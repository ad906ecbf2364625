"""Settings that the user's ssh_config gives a host, taken from `ssh -G`, which alone reads it right.

Where there is no ssh program, or no configuration that says anything, the defaults of OpenSSH apply.
"""

from __future__ import annotations

import getpass
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hawse.ssh.target import Target
from hawse_agent.errors import InputError

_KEYWORDS = re.compile(
    r"^\s*(include|host|match|hostname|user|port|identityfile|identitiesonly|identityagent|proxyjump|proxycommand"
    r"|userknownhostsfile|globalknownhostsfile|hostkeyalias)\b[\s=]+(?!\*\s*$|/etc/ssh/ssh_config\.d/)",
    re.IGNORECASE | re.MULTILINE,
)
_IDENTITIES = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
_KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything a connection is made of; nothing is left open."""

    host: str
    port: int
    user: str
    identities: tuple[Path, ...]
    """Private keys to try; with `identities_only` no key of an agent beside them."""
    identities_only: bool
    agent: str
    """Socket of the ssh-agent; "" is $SSH_AUTH_SOCK, "none" is no agent."""
    known_hosts: tuple[Path, ...]
    alias: str
    """The name that known_hosts knows the host by."""
    jumps: tuple[str, ...] = ()
    proxy_command: str = ""


def settings(target: Target) -> Settings:
    """Inventory first, then ssh_config, then defaults."""
    words = _ssh_g(target) if target.ssh_args or _has_configuration(Path.home()) else {}

    def one(key: str, default: str = "") -> str:
        return words.get(key, [default])[0]

    host = one("hostname", target.host)
    port = int(one("port", str(target.port or 22)))
    user = one("user", target.user) or getpass.getuser()
    if target.private_key is not None:
        identities: Sequence[str] = [str(target.private_key)]
    else:
        identities = words.get("identityfile", list(_IDENTITIES))
    files = [
        name
        for key in ("userknownhostsfile", "globalknownhostsfile")
        for name in shlex.split(one(key))
        if name != "none"
    ]
    jump = one("proxyjump", "none")
    command = one("proxycommand", "none")
    agent = one("identityagent") if target.use_agent else "none"
    return Settings(
        host=host,
        port=port,
        user=user,
        identities=tuple(Path(name).expanduser() for name in identities),
        identities_only=target.private_key is not None or one("identitiesonly") == "yes",
        agent="" if agent == "SSH_AUTH_SOCK" else agent,
        known_hosts=target.known_hosts or tuple(Path(name).expanduser() for name in files or _KNOWN_HOSTS),
        alias=one("hostkeyalias", host),
        jumps=() if jump == "none" else tuple(part.strip() for part in jump.split(",")),
        proxy_command="" if command == "none" else _expand(command, host=host, port=port, user=user),
    )


@cache
def _has_configuration(home: Path) -> bool:
    """Whether asking ssh can tell anything; it costs a process for each host."""
    if shutil.which("ssh") is None:
        return False
    files = [home / ".ssh/config", Path("/etc/ssh/ssh_config"), *Path("/etc/ssh/ssh_config.d").glob("*.conf")]
    return any(_KEYWORDS.search(_text(path)) for path in files)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _ssh_g(target: Target) -> dict[str, list[str]]:
    argv = ["ssh", "-G", *target.ssh_args]
    argv += ["-p", str(target.port)] if target.port else []
    argv += ["-l", target.user] if target.user else []
    try:
        done = subprocess.run(
            [*argv, "--", target.host], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10
        )
    except FileNotFoundError as error:
        raise InputError(
            f"{target.name}: the SSH arguments {shlex.join(target.ssh_args)!r} need OpenSSH's ssh program"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{target.name}: `ssh -G` does not answer") from error
    if done.returncode != 0:
        raise InputError(f"{target.name}: {done.stderr.strip() or 'ssh -G failed'}")
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key, []).append(value)
    return found


def _expand(command: str, *, host: str, port: int, user: str) -> str:
    """The tokens of ProxyCommand, which `ssh -G` leaves as they are."""
    tokens = {"%h": host, "%n": host, "%p": str(port), "%r": user, "%%": "%"}
    return re.sub(r"%.", lambda found: tokens.get(found[0], found[0]), command)
