"""What a container gets when nobody says otherwise: Docker's defaults."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from hawse_agent.errors import InputError
from hawse_agent.linux import privilege

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
"""Besides what `default_masked_paths` finds."""
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

ALL_CAPABILITIES = privilege.CAPABILITIES
DEFAULT_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)


@cache
def default_masked_paths(processors: Path = Path("/sys/devices/system/cpu")) -> tuple[str, ...]:
    """With each processor's counters of throttling, where it has them: they tell what others make it do."""
    return (*MASKED_PATHS, *sorted(map(str, processors.glob("cpu[0-9]*/thermal_throttle"))))


def combine_capabilities(add: Sequence[str], drop: Sequence[str], privileged: bool) -> tuple[str, ...]:
    """Docker's rule, cut to what this machine can give: privileged is all; ALL added is all but the dropped;
    ALL dropped is only the added; else the defaults, less the dropped, with the added."""
    added, dropped = _names(add), _names(drop)
    if privileged:
        wanted = set(ALL_CAPABILITIES)
    elif "ALL" in added:
        wanted = set(ALL_CAPABILITIES) - dropped
    elif "ALL" in dropped:
        wanted = added
    else:
        wanted = (set(DEFAULT_CAPABILITIES) - dropped) | added
    available = privilege.available()
    return tuple(
        name for number, name in enumerate(ALL_CAPABILITIES) if name in wanted and available >> number & 1
    )


def check_capabilities(field: str, given: Iterable[str]) -> None:
    """Raises InputError for one that there is not."""
    try:
        _names(given)
    except InputError as error:
        raise error.at(f"invalid {field}") from None


def _names(given: Iterable[str]) -> set[str]:
    names = set()
    for text in given:
        name = text.strip().upper()
        if name != "ALL":
            name = name if name.startswith("CAP_") else f"CAP_{name}"
            if name not in ALL_CAPABILITIES:
                raise InputError(f'unknown capability: "{name}"')
        names.add(name)
    return names
