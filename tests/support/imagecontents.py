"""What an image has beyond its base, read from `docker save`: of any engine, to be compared and kept.

tree       what the layers above the base's make of the root, one line a path: type, mode, owner, content
whiteouts  what they take away, by layer
config     of the image, without what is empty; history with hashes taken out
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Collection
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

FIXED_TIME = 1_700_000_000
"""Of the files in contexts: a path that has it says so, since COPY and ADD keep times."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    tree: dict[str, str]
    whiteouts: list[str]
    config: dict[str, Any]
    history: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "config": self.config,
            "history": self.history,
            "tree": self.tree,
            "whiteouts": self.whiteouts,
        }


def read(archive: Path, *, below: tuple[int, int] = (0, 0), volatile: Collection[str] = ()) -> Contents:
    """`below`: how many layers and entries of the history are the base's; content of paths that match one of
    `volatile` is not compared."""
    config, layers = _image(archive)
    tree: dict[str, str] = {}
    whiteouts: list[str] = []
    with tarfile.open(archive) as outer:
        for number, name in enumerate(layers[below[0] :]):
            member = outer.extractfile(name)
            assert member is not None
            with tarfile.open(fileobj=member) as layer:
                _stack(layer, number, tree, whiteouts, volatile)
    return Contents(
        tree=dict(sorted(tree.items())),
        whiteouts=sorted(whiteouts),
        config=_settings(config),
        history=[_history(one) for one in config["history"][below[1] :]],
    )


def _image(archive: Path) -> tuple[dict[str, Any], list[str]]:
    with tarfile.open(archive) as tar:
        (described,) = json.load(_file(tar, "manifest.json"))
        return json.load(_file(tar, described["Config"])), described["Layers"]


def _file(tar: tarfile.TarFile, name: str) -> Any:
    member = tar.extractfile(name)
    assert member is not None, name
    return member


_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.DIRTYPE: "dir",
    tarfile.SYMTYPE: "link",
    tarfile.LNKTYPE: "same as",
    tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
}


def _stack(
    layer: tarfile.TarFile,
    number: int,
    tree: dict[str, str],
    whiteouts: list[str],
    volatile: Collection[str],
) -> None:
    for member in layer:
        path = f"/{member.name.strip('/').removeprefix('./')}"
        directory, _, name = path.rpartition("/")
        if name == ".wh..wh..opq":
            whiteouts.append(f"{number}: all of {directory}")
            _remove(tree, directory, itself=False)
        elif name.startswith(".wh."):
            gone = f"{directory}/{name[4:]}"
            whiteouts.append(f"{number}: {gone}")
            _remove(tree, gone, itself=True)
        elif path not in ("/", "/."):
            if path in tree and not (member.isdir() and tree[path].startswith("dir ")):
                _remove(tree, path, itself=True)
            tree[path] = _line(layer, member, any(fnmatchcase(path, pattern) for pattern in volatile))


def _remove(tree: dict[str, str], path: str, *, itself: bool) -> None:
    for other in [one for one in tree if one.startswith(f"{path}/") or (itself and one == path)]:
        del tree[other]


def _line(layer: tarfile.TarFile, member: tarfile.TarInfo, volatile: bool) -> str:
    words = [_KINDS[member.type], f"{member.mode & 0o7777:04o}", f"{member.uid}:{member.gid}"]
    if member.issym():
        words[1:2] = []  # means nothing
        words.append(f"-> {member.linkname}")
    elif member.islnk():
        words.append(f"/{member.linkname.strip('/')}")
    elif member.isfile():
        content = _file(layer, member.name).read() if member.size else b""
        words.append("..." if volatile else _content(content))
    elif member.ischr() or member.isblk():
        words.append(f"{member.devmajor},{member.devminor}")
    for key, value in sorted(member.pax_headers.items()):
        if key.startswith("SCHILY.xattr."):
            words.append(f"{key[13:]}={value.encode(errors='surrogateescape').hex()}")
    if member.mtime == FIXED_TIME and not member.isdir():
        words.append("@")
    return " ".join(words)


def _content(content: bytes) -> str:
    text = content.decode(errors="replace")
    if len(content) <= 60 and "\ufffd" not in text:
        return json.dumps(text)
    return f"{len(content)} bytes {hashlib.sha256(content).hexdigest()[:16]}"


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in config["config"].items() if value not in (None, "", [], {}, False)}
    found.pop("Image", None)  # the step's parent: a name for a cache
    found.pop("Hostname", None)
    if config.get("author"):
        found["Author"] = config["author"]
    return {**found, "os": config["os"]}


_HASH = re.compile(r" ?(?:(?:file|dir|multi):)?[0-9a-f]{64}(?= in )")
"""dockerd forgets the blank after --chown, and what it has from an address is of no kind. Ours does not look
whether a stage has a file or a directory there as long as the cache has the step."""


def _history(one: dict[str, Any]) -> str:
    text = _HASH.sub(" *", one.get("created_by", ""))
    return f"{'' if one.get('empty_layer') else '+ '}{text}"
