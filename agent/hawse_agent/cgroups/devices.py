"""Which device nodes a container may make and open: Docker's rules, for v1 files and the v2 program alike."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hawse_agent.errors import InputError
from hawse_agent.spec.container import Device


@dataclass(frozen=True, kw_only=True)
class DeviceRule:
    """Allows `access` (of rwm) to devices; None is any number. `kind` "a" allows everything."""

    kind: Literal["a", "c", "b"]
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"

    def __str__(self) -> str:
        numbers = ":".join("*" if number is None else str(number) for number in (self.major, self.minor))
        return f"{self.kind} {numbers} {self.access}"


EVERYTHING = (DeviceRule(kind="a"),)

DEFAULT_RULES = (
    DeviceRule(kind="c", access="m"),  # nodes may be made, not opened
    DeviceRule(kind="b", access="m"),
    DeviceRule(kind="c", major=1, minor=3),  # null
    DeviceRule(kind="c", major=1, minor=5),  # zero
    DeviceRule(kind="c", major=1, minor=7),  # full
    DeviceRule(kind="c", major=1, minor=8),  # random
    DeviceRule(kind="c", major=1, minor=9),  # urandom
    DeviceRule(kind="c", major=5, minor=0),  # tty
    DeviceRule(kind="c", major=5, minor=1),  # console
    DeviceRule(kind="c", major=5, minor=2),  # ptmx
    DeviceRule(kind="c", major=136),  # pts
)


def device_rules(devices: Sequence[Device], privileged: bool) -> tuple[DeviceRule, ...]:
    if privileged:
        return EVERYTHING
    return (*DEFAULT_RULES, *(rule for device in devices for rule in _rules_of(device)))


def _rules_of(device: Device) -> list[DeviceRule]:
    return [rule_for(path, device.access) for path in device_nodes(device.host)]


def rule_for(path: str, access: str) -> DeviceRule:
    status = os.stat(path)
    kind: Literal["b", "c"] = "b" if stat.S_ISBLK(status.st_mode) else "c"
    number = status.st_rdev
    return DeviceRule(kind=kind, major=os.major(number), minor=os.minor(number), access=access)


def device_nodes(path: str) -> list[str]:
    """The node itself, or every node below a directory such as /dev/snd."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise InputError(f'no such device: "{path}"') from None
    if stat.S_ISDIR(mode):
        names = [os.path.join(top, name) for top, _, files in os.walk(path) for name in files]
        return sorted(name for name in names if _is_device(os.lstat(name).st_mode))
    if not _is_device(mode):
        raise InputError(f'"{path}" is not a device node')
    return [path]


def _is_device(mode: int) -> bool:
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
