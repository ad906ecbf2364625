"""How to reach a host, by Ansible's connection variables. What is not supported is refused by name."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hawse.ssh.target import HostKeyPolicy, Target, Timeouts
from hawse.template import Scope
from hawse.template.filters import to_bool
from hawse_agent.errors import InputError, NotSupported


@dataclass(frozen=True, kw_only=True)
class Connection:
    """The way to one host, and as whom its tasks run. The agent itself is root in any case."""

    target: Target
    become: bool | None = None
    """What `ansible_become` says, which wins over the play; None when it says nothing."""
    become_user: str = ""


_TEXTS: dict[str, tuple[str, ...]] = {
    "connection": ("ansible_connection",),
    "address": ("ansible_host", "ansible_ssh_host"),
    "user": ("ansible_user", "ansible_ssh_user"),
    "password": ("ansible_password", "ansible_ssh_password", "ansible_ssh_pass"),
    "private_key": ("ansible_private_key_file", "ansible_ssh_private_key_file"),
    "passphrase": ("ansible_private_key_passphrase", "ansible_ssh_private_key_passphrase"),
    "become_user": ("ansible_become_user", "ansible_sudo_user"),
    "become_method": ("ansible_become_method",),
    "become_password": ("ansible_become_password", "ansible_become_pass", "ansible_sudo_pass"),
    "python": ("ansible_python_interpreter",),
    "host_key": ("hawse_host_key",),
}
_OTHERS: dict[str, tuple[str, ...]] = {
    "port": ("ansible_port", "ansible_ssh_port"),
    "become": ("ansible_become", "ansible_sudo"),
    "host_key_checking": ("ansible_host_key_checking", "ansible_ssh_host_key_checking"),
    "timeout": ("ansible_timeout", "ansible_ssh_timeout"),
}
_NAMES = _TEXTS | _OTHERS
_ARGUMENTS = ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")
_MET = ("ansible_pipelining", "ansible_ssh_pipelining", "ansible_ssh_transfer_method")
"""Ways to make Ansible faster that are how Hawse works anyway."""

_KNOWN = {name for names in _NAMES.values() for name in names} | {*_ARGUMENTS, *_MET}
_FAMILIES = re.compile(
    r"ansible_(ssh|become|sudo|su|paramiko|winrm|psrp|network|netconf|httpapi|shell|docker|podman|aws_ssm"
    r"|control_path|scp|sftp|persistent|remote|jail|chroot|lxc|lxd|kubectl|buildah)(_|$)"
)
_STRICTNESS: dict[str, HostKeyPolicy] = {
    "yes": "strict", "ask": "strict", "accept-new": "accept-new", "no": "off", "off": "off",
}  # fmt: skip
_STRICT_OPTION = re.compile(r"stricthostkeychecking\s*[=\s]\s*(?P<value>\S+)", re.IGNORECASE)


def connection(name: str, scope: Scope, *, defaults: Target | None = None) -> Connection:
    """The connection of one host by its variables; what they leave open is as in `defaults`.

    Raises InputError, NotSupported with file and line.
    """
    for variable in scope:
        if _FAMILIES.match(variable) and variable not in _KNOWN:
            written = scope.variable(variable)
            if written is not None and written.templated:  # facts may bear such names
                raise NotSupported(f"{variable} is not supported by Hawse", where=written.where())
    return _Reader(scope).read(replace(defaults or Target(name=name), name=name))


class _Reader:
    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def read(self, base: Target) -> Connection:
        self._method()
        arguments = self._arguments()
        become, _ = self._value("become")
        key, python = self._text("private_key"), self._text("python")
        return Connection(
            become=to_bool(become),
            become_user=self._text("become_user"),
            target=replace(
                base,
                connection=self._connection(base),
                address=self._text("address") or base.address,
                port=self._port() or base.port,
                user=self._text("user") or base.user,
                password=self._text("password") or base.password,
                private_key=Path(key).expanduser() if key else base.private_key,
                private_key_passphrase=self._text("passphrase") or base.private_key_passphrase,
                ssh_args=base.ssh_args + arguments,
                host_key=self._text("host_key") or base.host_key,
                host_key_policy=self._policy(arguments, base),
                become_password=self._text("become_password") or base.become_password,
                python=base.python if python.startswith("auto") or not python else python,
                timeouts=self._timeouts(base.timeouts),
            ),
        )

    def _value(self, key: str) -> tuple[Any, str]:
        """The value and the variable it comes from."""
        name = next((name for name in _NAMES[key] if name in self._scope), None)
        return (self._scope[name], name) if name is not None else (None, _NAMES[key][0])

    def _text(self, key: str) -> str:
        value, name = self._value(key)
        if isinstance(value, bool | list | dict):
            raise self._error(name, f"{name} is a text")
        return "" if value is None else str(value)

    def _connection(self, base: Target) -> Literal["ssh", "local"]:
        value = self._text("connection").removeprefix("ansible.builtin.")
        if value in ("ssh", "smart", "paramiko", "paramiko_ssh"):
            return "ssh"
        if value == "local":
            return "local"
        if not value:
            return base.connection
        raise NotSupported(
            f"ansible_connection={value} is not supported by Hawse",
            where=self._where("ansible_connection"),
            hint="known: ssh, local",
        )

    def _method(self) -> None:
        value = self._text("become_method").removeprefix("ansible.builtin.")
        if value not in ("", "sudo"):
            raise NotSupported(
                f"ansible_become_method={value} is not supported by Hawse",
                where=self._where("ansible_become_method"),
                hint="known: sudo",
            )

    def _port(self) -> int:
        value, name = self._value("port")
        if value is None or value == "":
            return 0
        text = str(value)
        if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65536):
            raise self._error(name, f"{name} is a port, a number from 1 to 65535")
        return int(text)

    def _timeouts(self, base: Timeouts) -> Timeouts:
        value, name = self._value("timeout")
        if value is None:
            return base
        try:
            seconds = float(value)
        except (TypeError, ValueError):
            seconds = 0.0
        if not 0 < seconds < 86400:
            raise self._error(name, f"{name} is a number of seconds")
        return replace(base, connect=seconds)

    def _arguments(self) -> tuple[str, ...]:
        words: list[str] = []
        for name in _ARGUMENTS:
            if name in self._scope:
                try:
                    words += shlex.split(str(self._scope[name] or ""))
                except ValueError as error:
                    raise self._error(name, f"{name}: {error}") from None
        return tuple(words)

    def _policy(self, arguments: tuple[str, ...], base: Target) -> HostKeyPolicy:
        checking, name = self._value("host_key_checking")
        if checking is not None:
            return "strict" if to_bool(checking) else "off"
        for word in arguments:
            if match := _STRICT_OPTION.fullmatch(word.removeprefix("-o")):
                try:
                    return _STRICTNESS[match["value"].lower()]
                except KeyError:
                    name = next(name for name in _ARGUMENTS if name in self._scope)
                    raise self._error(
                        name, f"StrictHostKeyChecking has no value {match['value']!r}"
                    ) from None
        return base.host_key_policy

    def _where(self, name: str) -> str:
        written = self._scope.variable(name)
        return written.where() if written is not None else ""

    def _error(self, name: str, message: str) -> InputError:
        return InputError(message, where=self._where(name))
