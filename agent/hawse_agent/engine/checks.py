"""What a container's spec may say: what could else only fail at its start, or get into a file of its /etc.

Whoever asks, a Docker client or a stack, is refused before anything is made. Messages begin with Docker's
name of the field; where clients look for dockerd's words, they are those. The host is not looked at, but for
the devices whose rates are limited.
"""

from __future__ import annotations

import ipaddress
import json
import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterable, Sequence

from hawse_agent.errors import InputError
from hawse_agent.network import addresses, ports
from hawse_agent.runtime import identity, sysctls
from hawse_agent.runtime.defaults import check_capabilities
from hawse_agent.spec import tmpfs
from hawse_agent.spec.container import ContainerSpec, Device, Resources, Ulimit
from hawse_agent.spec.volume import Mount

_MAX_HOSTNAME = 64  # __NEW_UTS_LEN
_HOSTNAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_ALIAS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_DOMAIN = re.compile(r"\.|\.?[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")
_RESOLVER_OPTION = re.compile(r"[a-z][a-z0-9-]*(?::[0-9]{1,9})?")
_ACCESS = re.compile(r"(?!.*(.).*\1)[rwm]+")
_MAX_PIDS = 1 << 22
_CPU_SHARES = (2, 262144)


def check(spec: ContainerSpec) -> None:
    """Raises InputError, NotSupported."""
    _check_names(spec)
    _check_resolver(spec)
    _check_namespaces(spec)
    _check_networks(spec)
    check_capabilities("CapAdd", spec.cap_add)
    check_capabilities("CapDrop", spec.cap_drop)
    _check_ulimits(spec.ulimits)
    _check_devices(spec.devices)
    _check_mounts(spec.mounts)
    check_resources(spec.resources)


def check_resources(limits: Resources) -> None:
    swap, shares, pids = limits.memory_swap, limits.cpu_shares, limits.pids
    if swap is not None and swap < -1:
        raise InputError(f"MemorySwap: {swap}: expected a size, or -1 for no limit")
    if shares is not None and not _CPU_SHARES[0] <= shares <= _CPU_SHARES[1]:
        raise InputError(f"CpuShares: {shares}: expected a number from 2 to 262144")
    if pids is not None and pids > _MAX_PIDS:
        raise InputError(f"PidsLimit: {pids}: expected at most {_MAX_PIDS}, or -1 for no limit")
    for field, rates in (
        ("BlkioDeviceReadBps", limits.read_bps),
        ("BlkioDeviceWriteBps", limits.write_bps),
        ("BlkioDeviceReadIOps", limits.read_iops),
        ("BlkioDeviceWriteIOps", limits.write_iops),
    ):
        for rate in rates:
            if rate.rate <= 0:
                raise InputError(
                    f"{field}: invalid rate for device {rate.path}: {rate.rate}: expected more than 0"
                )
            _check_block_device(field, rate.path)


def _check_block_device(field: str, path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise InputError(f"{field}: no such device: {path!r}") from error
    if not stat.S_ISBLK(mode):
        raise InputError(f"{field}: {path} is not a block device")


def _check_names(spec: ContainerSpec) -> None:
    for field, name in (("Hostname", spec.hostname), ("Domainname", spec.domainname)):
        if name and (len(name) > _MAX_HOSTNAME or not _HOSTNAME.fullmatch(name)):
            raise InputError(
                f"{field}: invalid name {_shown(name)}: expected at most {_MAX_HOSTNAME} of a-z A-Z 0-9 - _ ."
            )


def _check_resolver(spec: ContainerSpec) -> None:
    """Every one of these becomes part of a line of resolv.conf or hosts."""
    for address in spec.dns:
        if not _is_address(address):
            raise InputError(f"Dns: {_shown(address)} is not an ip address")
    for domain in spec.dns_search:
        if not _DOMAIN.fullmatch(domain):
            raise InputError(f"DnsSearch: {_shown(domain)} is not a valid domain")
    for option in spec.dns_options:
        if not _RESOLVER_OPTION.fullmatch(option):
            raise InputError(f"DnsOptions: {_shown(option)} is not an option of resolv.conf")
    for entry in spec.extra_hosts:
        host, address = host_and_address(entry)
        if not _ALIAS.fullmatch(host):
            raise InputError(f"ExtraHosts: bad format for add-host: {_quoted(entry)}: expected NAME:ADDRESS")
        if address != "host-gateway" and not _is_address(address):
            raise InputError(f"ExtraHosts: invalid IP address in add-host: {_quoted(address)}")
    _check_links("Links", spec.links)


def host_and_address(entry: str) -> tuple[str, str]:
    """Of an extra host: `name:1.2.3.4`, `name:::1`, `name:[::1]`, `name:host-gateway`."""
    host, colon, address = entry.partition(":")
    if not colon:
        raise InputError(f"ExtraHosts: bad format for add-host: {_quoted(entry)}: expected NAME:ADDRESS")
    return host, address[1:-1] if address.startswith("[") and address.endswith("]") else address


def _check_links(field: str, links: Iterable[str]) -> None:
    for link in links:
        name, _, alias = link.partition(":")
        if not _ALIAS.fullmatch(name) or not _ALIAS.fullmatch(alias or name):
            raise InputError(f"{field}: bad format for links: {_shown(link)}: expected NAME or NAME:ALIAS")


def _check_namespaces(spec: ContainerSpec) -> None:
    for field, what, mode, known in (
        ("PidMode", "PID", spec.pid_mode, ("", "host")),
        ("IpcMode", "IPC", spec.ipc_mode, ("", "host", "none", "private", "shareable")),
        ("UTSMode", "UTS", spec.uts_mode, ("", "host")),
    ):
        joins = mode.startswith("container:") and what != "UTS"
        if joins and not mode.removeprefix("container:"):
            raise InputError(f"{field}: invalid container format container:<name|id>")
        if not joins and mode not in known:
            raise InputError(f"{field}: invalid {what} mode: {mode}")
    sysctls.check(spec.sysctls, own_ipc=_is_own(spec.ipc_mode), own_network=_is_own(spec.network_mode))


def _is_own(mode: str) -> bool:
    return mode != "host" and not mode.startswith("container:")


def _check_networks(spec: ContainerSpec) -> None:
    for endpoint in spec.networks:
        if endpoint.ipv4 and not _is_address(endpoint.ipv4, ipaddress.IPv4Address):
            raise InputError(f"IPAMConfig.IPv4Address: invalid IPv4 address: {_shown(endpoint.ipv4)}")
        if endpoint.mac:
            addresses.parse_mac(endpoint.mac)
        for alias in endpoint.aliases:
            if not _ALIAS.fullmatch(alias):
                raise InputError(f"Aliases: invalid alias {_shown(alias)}: expected a-z A-Z 0-9 - _ .")
        _check_links("Links", endpoint.links)
    for port in spec.ports:
        ports.check(port)


def _check_ulimits(limits: Sequence[Ulimit]) -> None:
    for limit in limits:
        if identity.limit_number(limit.name) is None:
            raise InputError(f"Ulimits: invalid ulimit type: {_shown(limit.name)}")
        for field, value in (("Soft", limit.soft), ("Hard", limit.hard)):
            if value < -1:
                raise InputError(
                    f"Ulimits: {limit.name}: {field}: {value}: expected a number, or -1 for no limit"
                )
        if limit.hard != -1 and (limit.soft == -1 or limit.soft > limit.hard):
            raise InputError(
                f"Ulimits: {limit.name}: ulimit soft limit must be less than or equal to hard limit: "
                f"{limit.soft} > {limit.hard}"
            )


def _check_devices(devices: Iterable[Device]) -> None:
    for device in devices:
        for field, path in (("PathOnHost", device.host), ("PathInContainer", device.target)):
            if not path.startswith("/") or posixpath.normpath(path).strip("/") == "":
                raise InputError(f"Devices.{field}: {_shown(path)} is not an absolute path of a device")
        if not _ACCESS.fullmatch(device.access):
            raise InputError(
                f"Devices.CgroupPermissions: {_shown(device.access)}: expected letters of rwm, each once"
            )


def _check_mounts(mounts: Iterable[Mount]) -> None:
    for mount in mounts:
        if not mount.target.startswith("/"):
            raise InputError(f"invalid mount path: {_shown(mount.target)}: mount path must be absolute")
        if posixpath.normpath(mount.target).strip("/") == "":
            raise InputError(f"invalid specification: destination can't be '/': {_shown(mount.target)}")
        if mount.subpath.startswith("/") or ".." in mount.subpath.split("/"):
            raise InputError(
                f"VolumeOptions.Subpath: {_shown(mount.subpath)}: must be a relative path within the volume"
            )
        if mount.kind == "tmpfs":
            tmpfs.check(mount.tmpfs_options)
            if mount.tmpfs_size < 0 or not 0 <= mount.tmpfs_mode <= 0o7777:
                raise InputError(f"TmpfsOptions of {mount.target}: expected a size, and a mode up to 07777")


def _is_address(text: str, kind: Callable[[str], object] = ipaddress.ip_address) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return "%" not in text


def _quoted(text: str) -> str:
    """As dockerd does it."""
    return json.dumps(text if len(text) <= 80 else f"{text[:80]}…", ensure_ascii=False)


def _shown(text: str) -> str:
    """On one line, and not too long."""
    return repr(text if len(text) <= 80 else f"{text[:80]}…")
