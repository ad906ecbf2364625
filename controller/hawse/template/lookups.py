"""`lookup('file', 'motd')` and `lookup('env', 'HOME')`: what templates read on the controller.

Only `file` and `env`; other names are refused. Relative files are searched in `files/` and then directly
in each directory of the search path, as are includes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hawse_agent.errors import InputError, NotSupported


def lookup(search: Sequence[Path], name: str, *terms: Any, **options: Any) -> str:
    """The values of all terms, joined by commas."""
    return ",".join(query(search, name, *terms, **options))


def query(search: Sequence[Path], name: str, *terms: Any, **options: Any) -> list[str]:
    name = name.removeprefix("ansible.builtin.")
    flat = [str(part) for term in terms for part in (term if isinstance(term, list | tuple) else [term])]
    if name == "env":
        default = options.pop("default", "")
        _refuse(name, options)
        return [os.environ.get(term, default) for term in flat]
    if name == "file":
        lstrip, rstrip = options.pop("lstrip", False), options.pop("rstrip", True)
        _refuse(name, options)
        texts = [_read(find(search, term, "files")) for term in flat]
        texts = [text.rstrip() if rstrip else text for text in texts]
        return [text.lstrip() if lstrip else text for text in texts]
    raise NotSupported(f"lookup {name!r} is not supported", hint="known lookups: file, env")


def find(search: Sequence[Path], name: str, folder: str) -> Path:
    """The file that a relative name means: in `folder` of a search directory, or in the directory itself."""
    path = Path(name).expanduser()
    if path.is_absolute():
        return path
    for directory in search:
        for candidate in (directory / folder / path, directory / path):
            if candidate.exists():
                return candidate
    looked = ", ".join(str(directory) for directory in search) or "nowhere"
    raise InputError(f"no such file: {name}", hint=f"looked in {looked}, and in {folder}/ of each")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text") from error


def _refuse(name: str, options: dict[str, Any]) -> None:
    if options:
        raise NotSupported(f"lookup {name!r} has no option {next(iter(options))!r}")
