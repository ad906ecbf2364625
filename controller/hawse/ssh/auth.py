"""Logging in: which keys to try, in which order, and what to say when none is accepted.

Keys that the configuration names come first (out of the agent where it holds them: no passphrase), then the
other keys of the agent, then the password. sshd cuts the connection after six attempts, so at most five keys
are tried.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko

from hawse.ssh.config import Settings
from hawse.ssh.known_hosts import HostKey, parse_key
from hawse_agent.errors import InputError, Unreachable

MOST_KEYS = 5

AskPassphrase = Callable[[Path], str]
"""Asks the person for the passphrase of a key file; "" gives the key up."""


@dataclass(frozen=True, kw_only=True)
class Login:
    key: HostKey | None
    """The key that was accepted; None for a password."""


class KeyRing:
    """Private keys read from files, once for all hosts; asks for a passphrase at most once for each file."""

    def __init__(self, ask: AskPassphrase | None = None) -> None:
        self._ask = ask
        self._keys: dict[Path, paramiko.PKey | str] = {}
        self._lock = threading.Lock()

    def load(self, path: Path, passphrase: str = "") -> paramiko.PKey | str:
        """The key, or why it cannot be used."""
        with self._lock:
            if path not in self._keys:
                self._keys[path] = self._read(path, passphrase)
            return self._keys[path]

    def _read(self, path: Path, passphrase: str) -> paramiko.PKey | str:
        try:
            return _read_key(path, passphrase)
        except FileNotFoundError:
            return f"{path} does not exist"
        except paramiko.PasswordRequiredException:
            if not passphrase:
                return self._unlock(path)
            return f"{path}: the passphrase is wrong"
        except (OSError, ValueError, paramiko.SSHException) as error:
            return f"{path}: {'the passphrase is wrong' if passphrase else error}"

    def _unlock(self, path: Path) -> paramiko.PKey | str:
        passphrase = self._ask(path) if self._ask else ""
        if not passphrase:
            return f"{path} is protected by a passphrase (load it into an ssh-agent)"
        try:
            return _read_key(path, passphrase)
        except (OSError, ValueError, paramiko.SSHException):
            return f"{path}: the passphrase is wrong"


def log_in(
    transport: paramiko.Transport,
    settings: Settings,
    keys: KeyRing,
    *,
    name: str,
    password: str,
    passphrase: str,
) -> Login:
    """Authenticates; raises `Unreachable(stage="auth")` that names what was tried."""
    tried: list[str] = []
    agent = _Agent(settings.agent)
    try:
        for key, label in _candidates(settings, agent, keys, passphrase, tried):
            try:
                if not transport.auth_publickey(settings.user, key):
                    return Login(key=HostKey(kind=key.get_name(), blob=key.asbytes()))
                tried.append(f"{label}: accepted, but the server wants a second factor")
            except paramiko.BadAuthenticationType as error:
                tried.append(f"keys: the server only takes {', '.join(error.allowed_types)}")
                break
            except paramiko.AuthenticationException as error:
                if not transport.is_active():  # paramiko says so, too, when the connection breaks
                    tried.append(f"{label}: {error}")
                    break
                tried.append(f"{label}: not accepted")
        if password and transport.is_active():
            try:
                transport.auth_password(settings.user, password)
                return Login(key=None)
            except paramiko.BadAuthenticationType as error:
                tried.append(f"password: the server only takes {', '.join(error.allowed_types)}")
            except paramiko.AuthenticationException as error:
                tried.append("password: not accepted" if transport.is_active() else f"password: {error}")
    except (paramiko.SSHException, OSError, EOFError) as error:
        tried.append(str(error) or "the host ended the connection")
    finally:
        agent.close()
    raise Unreachable(
        f"{name}: cannot log in as {settings.user}: {'; '.join(tried) or 'no key and no password to try'}",
        stage="auth",
        hint="set ansible_user, ansible_ssh_private_key_file, or load the key into an ssh-agent",
    )


def _candidates(
    settings: Settings, agent: _Agent, keys: KeyRing, passphrase: str, tried: list[str]
) -> Iterator[tuple[paramiko.PKey, str]]:
    """Keys to offer, best first; reasons of those that cannot be used go to `tried`."""
    held = agent.keys()
    left = MOST_KEYS
    offered: set[bytes] = set()
    named = [path for path in settings.identities if settings.identities_only or path.exists()]
    for path in named:
        public = _public_blob(path)
        key: paramiko.PKey | str | None = next((key for key in held if key.asbytes() == public), None)
        if key is None:
            key = keys.load(path, passphrase)
        if isinstance(key, str):
            tried.append(key)
        elif left and key.asbytes() not in offered:
            left -= 1
            offered.add(key.asbytes())
            yield key, str(path)
    if not settings.identities_only:
        for key in held:
            if left and key.asbytes() not in offered:
                left -= 1
                offered.add(key.asbytes())
                yield key, f"agent key {key.comment or key.get_name()}"


class _Agent(paramiko.agent.AgentSSH):
    """An ssh-agent at a given socket; without one it holds no keys."""

    def __init__(self, where: str) -> None:
        super().__init__()
        path = where or os.environ.get("SSH_AUTH_SOCK", "")
        if not path or path == "none":
            return
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        try:
            connection.connect(os.path.expanduser(path))
            self._connect(connection)  # type: ignore[attr-defined]
        except (OSError, paramiko.SSHException) as error:
            connection.close()
            if where:
                raise InputError(f"the ssh-agent at {path} does not answer: {error}") from error

    def keys(self) -> tuple[paramiko.AgentKey, ...]:
        return tuple(self.get_keys())

    def close(self) -> None:
        self._close()  # type: ignore[attr-defined]


def _read_key(path: Path, passphrase: str) -> paramiko.PKey:
    """With the certificate beside it, `KEY-cert.pub`, when there is one."""
    failure: Exception = ValueError("not a private key")
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            key: paramiko.PKey = kind.from_private_key_file(str(path), passphrase or None)
        except (paramiko.PasswordRequiredException, OSError):
            raise
        except (paramiko.SSHException, ValueError) as error:  # of another kind
            failure = error
        else:
            certificate = path.with_name(f"{path.name}-cert.pub")
            if certificate.exists():
                key.load_certificate(str(certificate))
            return key
    raise failure


def _public_blob(path: Path) -> bytes | None:
    """The public half beside a private key, when it is there."""
    try:
        return parse_key(path.with_name(f"{path.name}.pub").read_text()).blob
    except (OSError, ValueError):
        return None
