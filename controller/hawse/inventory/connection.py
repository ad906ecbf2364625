"""How to reach a host: Ansible's connection variables as one record. What is not supported is refused."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hawse.template import Scope
from hawse.template.filters import to_bool
from hawse_agent.errors import InputError, NotSupported

HostKeyPolicy = Literal["", "strict", "accept-new", "off"]


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Empty texts and None leave the choice to ssh_config and the defaults of the command line."""

    name: str
    connection: Literal["ssh", "local"] = "ssh"
    address: str = ""
    port: int | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    private_key: str = ""
    become: bool = False
    """Whether tasks run as `become_user` unless they say otherwise; the agent is root in any case."""
    become_user: str = "root"
    become_method: Literal["sudo"] = "sudo"
    become_password: str = field(default="", repr=False)
    python_interpreter: str = ""
    host_key: str = ""
    """The one key that the host must show: `ssh-ed25519 AAAA…`, or its fingerprint `SHA256:…`."""
    host_key_policy: HostKeyPolicy = ""
    known_hosts: str = ""
    proxy_jump: str = ""
    """Hosts to go through, as in ssh -J: `user@bastion:22,second`."""
    timeout: float | None = None


_FIELDS: dict[str, tuple[str, ...]] = {
    "connection": ("ansible_connection",),
    "address": ("ansible_host", "ansible_ssh_host"),
    "port": ("ansible_port", "ansible_ssh_port"),
    "user": ("ansible_user", "ansible_ssh_user"),
    "password": ("ansible_password", "ansible_ssh_password", "ansible_ssh_pass"),
    "private_key": ("ansible_private_key_file", "ansible_ssh_private_key_file"),
    "become": ("ansible_become", "ansible_sudo"),
    "become_user": ("ansible_become_user", "ansible_sudo_user"),
    "become_method": ("ansible_become_method",),
    "become_password": ("ansible_become_password", "ansible_become_pass", "ansible_sudo_pass"),
    "python_interpreter": ("ansible_python_interpreter",),
    "host_key": ("hawse_host_key",),
    "host_key_checking": ("ansible_host_key_checking", "ansible_ssh_host_key_checking"),
    "timeout": ("ansible_timeout", "ansible_ssh_timeout"),
}
_ARGUMENTS = ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")
_MET = ("ansible_pipelining", "ansible_ssh_pipelining", "ansible_ssh_retries", "ansible_ssh_transfer_method")
"""Ways to make Ansible faster or steadier that are how Hawse works anyway."""

_KNOWN = {name for names in _FIELDS.values() for name in names} | {*_ARGUMENTS, *_MET}
_FAMILIES = re.compile(
    r"ansible_(ssh|become|sudo|su|paramiko|winrm|psrp|network|netconf|httpapi|shell|docker|podman|aws_ssm"
    r"|control_path|scp|sftp|persistent|remote|jail|chroot|lxc|lxd|kubectl|buildah)(_|$)"
)
_NATIVE = ("ssh", "smart", "paramiko", "paramiko_ssh", "ansible.builtin.ssh")


def connection(name: str, scope: Scope) -> Connection:
    """The connection of one host by its variables. Raises InputError, NotSupported with file and line."""
    for variable in scope:
        if _FAMILIES.match(variable) and variable not in _KNOWN:
            written = scope.variable(variable)
            if written is not None and written.templated:  # facts may bear such names
                raise NotSupported(f"{variable} is not supported by Hawse", where=written.where())
    return _Reader(name, scope).read()


class _Reader:
    def __init__(self, name: str, scope: Scope) -> None:
        self._name = name
        self._scope = scope

    def read(self) -> Connection:
        options = self._arguments()
        policy: HostKeyPolicy = options.get("policy", "")
        checking, _ = self._value("host_key_checking")
        if checking is not None:
            policy = "strict" if to_bool(checking) else "off"
        return Connection(
            name=self._name,
            connection=self._connection(),
            address=self._text("address") or self._name,
            port=self._port(options),
            user=self._text("user") or options.get("user", ""),
            password=self._text("password"),
            private_key=self._text("private_key") or options.get("private_key", ""),
            become=bool(to_bool(self._value("become")[0])),
            become_user=self._text("become_user") or "root",
            become_method=self._become_method(),
            become_password=self._text("become_password"),
            python_interpreter=self._interpreter(),
            host_key=self._text("host_key"),
            host_key_policy=policy,
            known_hosts=options.get("known_hosts", ""),
            proxy_jump=options.get("proxy_jump", ""),
            timeout=self._timeout(options),
        )

    def _value(self, key: str) -> tuple[Any, str]:
        """The value and the variable it comes from."""
        for name in _FIELDS[key]:
            if name in self._scope:
                return self._scope[name], name
        return None, _FIELDS[key][0]

    def _text(self, key: str) -> str:
        value, name = self._value(key)
        if value is None:
            return ""
        if isinstance(value, bool | list | dict):
            raise self._error(name, f"{name} is a text")
        return str(value)

    def _connection(self) -> Literal["ssh", "local"]:
        value = self._text("connection")
        if value in ("", *_NATIVE):
            return "ssh"
        if value in ("local", "ansible.builtin.local"):
            return "local"
        raise NotSupported(
            f"ansible_connection={value} is not supported by Hawse",
            where=self._where("ansible_connection"),
            hint="known: ssh, local",
        )

    def _become_method(self) -> Literal["sudo"]:
        value = self._text("become_method")
        if value in ("", "sudo", "ansible.builtin.sudo"):
            return "sudo"
        raise NotSupported(
            f"ansible_become_method={value} is not supported by Hawse",
            where=self._where("ansible_become_method"),
            hint="known: sudo",
        )

    def _interpreter(self) -> str:
        value = self._text("python_interpreter")
        return "" if value.startswith("auto") else value

    def _port(self, options: Mapping[str, Any]) -> int | None:
        value, name = self._value("port")
        if value is None:
            value = options.get("port")
        if value is None or value == "":
            return None
        text = str(value)
        if isinstance(value, bool) or not text.isdecimal() or not 0 < int(text) < 65536:
            raise self._error(name, f"{name} is a port, a number from 1 to 65535")
        return int(text)

    def _timeout(self, options: Mapping[str, Any]) -> float | None:
        value, name = self._value("timeout")
        value = options.get("timeout") if value is None else value
        if value is None:
            return None
        try:
            return float(value)
        except (TypeError, ValueError):
            raise self._error(name, f"{name} is a number of seconds") from None

    def _arguments(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        for name in _ARGUMENTS:
            if name in self._scope:
                text = str(self._scope[name] or "")
                try:
                    words = shlex.split(text)
                except ValueError as error:
                    raise self._error(name, f"{name}: {error}") from None
                options |= _options(words, name, self._where(name))
        return options

    def _where(self, name: str) -> str:
        written = self._scope.variable(name)
        return written.where() if written is not None else ""

    def _error(self, name: str, message: str) -> InputError:
        return InputError(message, where=self._where(name))


_FLAGS = {"-J": "proxyjump", "-i": "identityfile", "-p": "port", "-l": "user"}
_NO_EFFECT = ("controlmaster", "controlpersist", "controlpath", "forwardagent", "compression", "loglevel",
              "preferredauthentications", "serveraliveinterval", "serveralivecountmax", "batchmode",
              "identitiesonly", "pubkeyauthentication", "gssapiauthentication")  # fmt: skip
_POLICIES: dict[str, HostKeyPolicy] = {
    "yes": "strict", "ask": "strict", "accept-new": "accept-new", "no": "off", "off": "off",
}  # fmt: skip


def _options(words: list[str], name: str, where: str) -> dict[str, Any]:
    """The options of an ssh command line that have a meaning here; others are refused."""
    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in ("-C", "-q", "-A", "-T", "-4", "-6", "-v"):
            continue
        flag, value = word[:2], word[2:]
        if flag not in ("-o", *_FLAGS):
            raise NotSupported(f"{name}: {word} is not supported by Hawse", where=where)
        if not value:
            if not rest:
                raise InputError(f"{name}: {flag} needs a value", where=where)
            value = rest.pop(0)
        if flag == "-o":
            key, _, value = (
                value.partition("=")
                if "=" in value.partition(" ")[0] or " " not in value
                else value.partition(" ")
            )
        else:
            key = _FLAGS[flag]
        found |= _option(key.strip().lower(), value.strip(), key, name, where)
    return found


def _option(key: str, value: str, shown: str, name: str, where: str) -> dict[str, Any]:
    match key:
        case "proxyjump":
            return {"proxy_jump": "" if value == "none" else value}
        case "proxycommand":
            return {"proxy_jump": _jump(value, name, where)}
        case "identityfile":
            return {"private_key": value}
        case "port":
            return {"port": value}
        case "user":
            return {"user": value}
        case "connecttimeout":
            return {"timeout": value}
        case "userknownhostsfile":
            return {"known_hosts": value}
        case "stricthostkeychecking":
            if value not in _POLICIES:
                raise InputError(f"{name}: StrictHostKeyChecking has no value {value!r}", where=where)
            return {"policy": _POLICIES[value]}
    if key in _NO_EFFECT:
        return {}
    raise NotSupported(f"{name}: {shown} is not supported by Hawse", where=where)


def _jump(command: str, name: str, where: str) -> str:
    """`ssh -W %h:%p user@bastion`, the old way to say ProxyJump."""
    words = shlex.split(command)
    port, target, through = "", "", False
    if words and words[0].rpartition("/")[2] == "ssh":
        rest = words[1:]
        while rest:
            word = rest.pop(0)
            if word == "-W" and rest:
                through = rest.pop(0) == "%h:%p"
            elif word == "-p" and rest:
                port = rest.pop(0)
            elif word == "-q":
                continue
            elif not word.startswith("-") and not target:
                target = word
            else:
                target, through = "", False
                break
    if not (through and target):
        raise NotSupported(
            f"{name}: this ProxyCommand is not supported by Hawse", where=where, hint="write -J user@bastion"
        )
    return f"{target}:{port}" if port else target
