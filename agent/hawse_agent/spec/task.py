"""Arguments of the modules that run on a host, one dataclass each, with Ansible's names and defaults.

The controller checks names and values against them before anything runs; the agent reads them back with the
same types. What is not here is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

FileState = Literal["file", "directory", "link", "hard", "absent", "touch"]
PackageState = Literal["present", "installed", "latest", "absent", "removed"]
WaitState = Literal["started", "present", "stopped", "absent", "drained"]


@dataclass(frozen=True, kw_only=True)
class CommandArguments:
    """One of `cmd` (split like a shell does, but run by none) and `argv`."""

    cmd: str = ""
    argv: tuple[str, ...] = ()
    chdir: str = ""
    creates: str = ""
    """A glob; the command does not run when something matches."""
    removes: str = ""
    """A glob; the command runs only when something matches."""
    stdin: str | None = None
    stdin_add_newline: bool = True
    strip_empty_ends: bool = True
    expand_argument_vars: bool = True


@dataclass(frozen=True, kw_only=True)
class ShellArguments:
    cmd: str
    chdir: str = ""
    creates: str = ""
    removes: str = ""
    executable: str = ""
    """The shell; /bin/sh by default."""
    stdin: str | None = None
    stdin_add_newline: bool = True


@dataclass(frozen=True, kw_only=True)
class FileArguments:
    path: str
    state: FileState | None = None
    """None: what is there, with these attributes; a directory where there is nothing and `recurse`."""
    src: str = ""
    """What a link points to."""
    mode: str = ""
    """Octal, or symbolic as chmod takes it."""
    owner: str = ""
    group: str = ""
    recurse: bool = False
    force: bool = False
    """A link may replace a file, and point to what is not there."""
    follow: bool = True


@dataclass(frozen=True, kw_only=True)
class CopyArguments:
    """The content comes as base64, as a blob, or from a file of the host (`remote_src`)."""

    dest: str
    content_b64: str | None = None
    content_blob: str = ""
    src: str = ""
    remote_src: bool = False
    mode: str = ""
    """Also `preserve`, the mode of the source."""
    owner: str = ""
    group: str = ""
    backup: bool = False
    force: bool = True
    """False: a file that is there stays as it is."""
    validate: str = ""
    """A command with %s for the new file; it is put into place only when that succeeds."""
    follow: bool = True
    """Write to where `dest` points, when it is a link."""


@dataclass(frozen=True, kw_only=True)
class TemplateArguments:
    """Rendered by the controller; the host gets the text."""

    dest: str
    content_b64: str | None = None
    content_blob: str = ""
    mode: str = ""
    owner: str = ""
    group: str = ""
    backup: bool = False
    force: bool = True
    validate: str = ""
    follow: bool = True


@dataclass(frozen=True, kw_only=True)
class PackageArguments:
    name: tuple[str, ...] = ()
    """Empty only to update the cache. apt takes `name=version` too."""
    state: PackageState = "present"
    update_cache: bool = False


@dataclass(frozen=True, kw_only=True)
class WaitForArguments:
    host: str = "127.0.0.1"
    port: int | None = None
    path: str = ""
    state: WaitState = "started"
    search_regex: str = ""
    timeout: float = 300.0
    delay: float = 0.0
    connect_timeout: float = 5.0
    sleep: float = 1.0
    msg: str = ""


ARGUMENTS: Mapping[str, type] = {
    "command": CommandArguments,
    "shell": ShellArguments,
    "file": FileArguments,
    "copy": CopyArguments,
    "template": TemplateArguments,
    "package": PackageArguments,
    "apt": PackageArguments,
    "wait_for": WaitForArguments,
}

FREE_FORM: frozenset[str] = frozenset({"command", "shell"})
"""Modules that may be given as plain text, which becomes `cmd`."""
