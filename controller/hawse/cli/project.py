"""`hawse.toml`: the folder that is a project, and what holds for every command in it."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hawse.ssh.target import HostKeyPolicy
from hawse_agent.errors import InputError

if TYPE_CHECKING:
    from hawse_agent.distribution.settings import RegistrySettings

FILE = "hawse.toml"
FORKS = 32


@dataclass(frozen=True, kw_only=True)
class Project:
    """Paths are absolute or relative to the working directory."""

    directory: Path
    file: Path | None = None
    """None where there is no hawse.toml."""
    inventory: tuple[str, ...] = ()
    remote_user: str = ""
    private_key: Path | None = None
    forks: int = FORKS
    timeout: float | None = None
    host_key_checking: HostKeyPolicy | None = None
    known_hosts: tuple[Path, ...] = ()
    registries: RegistrySettings | None = None
    """How this machine reaches registries, where it says something of it; hosts have their agent.toml."""


def find(directory: Path | None, working: Path) -> Project:
    """The project in `directory`, else the one around `working`, else one without settings."""
    if directory is not None:
        if not (directory / FILE).is_file():
            raise InputError(f"there is no {FILE} in {directory}", hint="`hawse init` makes one")
        return read(directory / FILE)
    for folder in (working, *working.parents):
        if (folder / FILE).is_file():
            return read(Path(os.path.relpath(folder / FILE, working)) if folder != working else Path(FILE))
    return Project(directory=Path())


def read(file: Path) -> Project:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError("expected UTF-8 text", where=str(file)) from error
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror}", where=str(file)) from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"\(at line (\d+)", str(error))
        where = f"{file}:{line[1]}" if line else str(file)
        raise InputError(f"not TOML: {str(error).partition(' (at ')[0]}", where=where) from error
    return _Reader(file, text).project(values)


class _Reader:
    def __init__(self, file: Path, text: str) -> None:
        self._file = file
        self._lines = text.splitlines()

    def project(self, values: Mapping[str, Any]) -> Project:
        known: dict[str, Callable[[str, Any], Any]] = {
            "inventory": self._inventory,
            "remote_user": self._text,
            "private_key": self._path,
            "forks": self._forks,
            "timeout": self._timeout,
            "host_key_checking": self._policy,
            "registries": self._registries,
            "known_hosts": lambda key, value: tuple(self._path(key, item) for item in self._list(key, value)),
        }
        settings: dict[str, Any] = {}
        for key, value in values.items():
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
                raise self._error(key, f"unknown key {key!r}", hint)
            settings[key] = known[key](key, value)
        return Project(directory=self._file.parent, file=self._file, **settings)

    def _inventory(self, key: str, value: Any) -> tuple[str, ...]:
        return tuple(item if "," in item else str(self._path(key, item)) for item in self._list(key, value))

    def _list(self, key: str, value: Any) -> list[str]:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) and item for item in items):
            raise self._error(key, f"{key} is a text or a list of texts")
        return items

    def _text(self, key: str, value: Any) -> str:
        if not isinstance(value, str):
            raise self._error(key, f"{key} is a text")
        return value

    def _path(self, key: str, value: Any) -> Path:
        return self._file.parent / Path(self._text(key, value)).expanduser()

    def _forks(self, key: str, value: Any) -> int:
        if type(value) is not int or value < 1:
            raise self._error(key, f"{key} is a number from 1 up")
        return value

    def _timeout(self, key: str, value: Any) -> float:
        if type(value) not in (int, float) or not 0 < value < 86400:
            raise self._error(key, f"{key} is a number of seconds")
        return float(value)

    def _policy(self, key: str, value: Any) -> HostKeyPolicy:
        if value in ("strict", "accept-new", "off"):
            policy: HostKeyPolicy = value
            return policy
        raise self._error(key, f"{key} is strict, accept-new or off")

    def _registries(self, key: str, value: Any) -> RegistrySettings:
        from hawse_agent.distribution.settings import RegistrySettings
        from hawse_agent.spec import codec

        try:
            settings = codec.from_json(RegistrySettings, value, key)
            settings.check()
        except InputError as error:
            raise self._error(key, error.message, error.hint) from None
        return settings

    def _error(self, key: str, message: str, hint: str = "") -> InputError:
        pattern = re.compile(rf"""\s*\[*\s*["']?{re.escape(key)}["']?\s*[\].=]""")
        lines = (number for number, line in enumerate(self._lines, 1) if pattern.match(line))
        return InputError(message, where=f"{self._file}:{next(lines, 1)}", hint=hint)
