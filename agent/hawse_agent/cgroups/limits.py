"""One limit of a cgroup: which file says it, how it is written, how it is read back.

The kernel rounds (memory to pages, shares to weights), so that what it says is not always what was asked.
Each write is therefore remembered in an xattr beside the file's text right after it; as long as the file
still says the same, the limit is what was asked, and once somebody else changes it, what the file says.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hawse_agent.cgroups import files
from hawse_agent.errors import InputError, NotSupported
from hawse_agent.spec import codec
from hawse_agent.spec.container import DeviceRate, Resources

CFS_PERIOD = 100_000
MIN_QUOTA = 1_000
DEFAULT_SHARES = 1024

_XATTR = "trusted.hawse."


@dataclass(frozen=True, kw_only=True)
class Limit:
    """`render` gives the texts to write one after another, none when the limit is not asked for;
    `reset` those that lift it, given what the file says now."""

    field: str
    directory: str
    file: str
    render: Callable[[Resources], tuple[str, ...]]
    reset: Callable[[str], tuple[str, ...]]
    parse: Callable[[str], Any]
    optional: bool = False
    """A kernel without this file warns instead of refusing."""

    @property
    def path(self) -> str:
        return f"{self.directory}/{self.file}"

    def set(self, resources: Resources) -> str:
        """Write it when it is asked for; returns a warning or an empty text."""
        texts = self.render(resources)
        if not texts:
            return ""
        try:
            for text in texts:
                files.write(self.path, text)
        except FileNotFoundError:
            if self.optional:
                return f"this kernel does not limit {self.field}: it is left unlimited"
            raise NotSupported(f"this kernel cannot limit {self.field}: it has no {self.file}") from None
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ERANGE):
                raise InputError(f"the kernel refuses {self.field} {' '.join(texts)!r}") from error
            raise
        self._remember(getattr(resources, self.field))
        return ""

    def lift(self) -> None:
        """Back to unlimited, where there is something to lift."""
        try:
            now = files.read(self.path)
            for text in self.reset(now):
                files.write(self.path, text)
        except FileNotFoundError:
            return  # a kernel without this limit
        with contextlib.suppress(OSError):  # never remembered
            os.removexattr(self.directory, _XATTR + self.field)

    def value(self) -> Any:
        """What is in force, as the spec says it."""
        try:
            text = files.read(self.path)
        except FileNotFoundError:
            text = None
        asked, said = self._remembered()
        if said == text and asked is not None:
            return asked
        return getattr(Resources(), self.field) if text is None else self.parse(text)

    def _remember(self, asked: Any) -> None:
        note = json.dumps([codec.to_json(asked), files.read(self.path)])
        os.setxattr(self.directory, _XATTR + self.field, note.encode())

    def _remembered(self) -> tuple[Any, str | None]:
        try:
            asked, said = json.loads(os.getxattr(self.directory, _XATTR + self.field))
        except OSError:  # ENODATA: not set by us
            return None, None
        if isinstance(asked, list):
            asked = tuple(DeviceRate(path=rate["path"], rate=rate["rate"]) for rate in asked)
        return asked, said


def quota_of(resources: Resources) -> int | None:
    """Microseconds of a period; None is without limit."""
    if resources.cpus is None:
        return None
    return max(MIN_QUOTA, round(resources.cpus * (resources.cpu_period or CFS_PERIOD)))


def device_number(path: str) -> str:
    try:
        number = os.stat(path).st_rdev
    except OSError as error:
        raise InputError(f"no such device: {path}") from error
    return f"{os.major(number)}:{os.minor(number)}"


def device_path(number: str) -> str:
    """The node's usual name, or /dev/block/MAJ:MIN."""
    link = f"/dev/block/{number}"
    return os.path.realpath(link) if os.path.exists(link) else link


def maximum(text: str) -> int | None:
    return None if text == "max" else int(text)
