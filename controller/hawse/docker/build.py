"""`build`: the table of its flags, and the query and secrets that they add up to."""

from __future__ import annotations

import base64
import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hawse.docker import values
from hawse.docker.flags import Flag, Given
from hawse_agent.errors import InputError, NotSupported

Json = dict[str, Any]


def build_argument(text: str, own: Mapping[str, str] = os.environ) -> Json:
    """`NAME=VALUE`; NAME alone takes over our own value, where there is one."""
    name, equals, value = text.partition("=")
    if not name:
        raise ValueError(f"invalid build argument: {text}")
    return {name: value if equals else own.get(name)}


@dataclass(frozen=True, kw_only=True)
class Secret:
    """One of a file or a variable."""

    id: str
    file: str = ""
    variable: str = ""

    def content(self, own: Mapping[str, str] = os.environ) -> bytes:
        """Raises InputError, which names the secret."""
        if self.variable:
            if self.variable not in own:
                raise InputError(f"secret {self.id}: there is no variable {self.variable}")
            return own[self.variable].encode(errors="surrogateescape")
        try:
            return Path(self.file).expanduser().read_bytes()
        except OSError as error:
            raise InputError(f"secret {self.id}: {self.file}: {error.strerror}") from error


def secret(text: str, own: Mapping[str, str] = os.environ) -> list[Secret]:
    """`id=NAME,src=FILE`, `id=NAME,env=VARIABLE`; NAME alone is a variable, else a file."""
    fields = _fields(text, ("id", "src", "source", "env", "type"))
    name = fields.get("id", "")
    kind = fields.get("type", "")
    if not name:
        raise ValueError("a secret needs an id")
    if kind not in ("", "file", "env"):
        raise ValueError(f"unsupported secret type {kind!r}")
    file, variable = fields.get("src") or fields.get("source") or "", fields.get("env", "")
    if kind == "env" and file and not variable:
        file, variable = "", file
    if file and variable:
        raise ValueError("src and env exclude each other")
    if not file and not variable:
        file, variable = ("", name) if kind == "env" or (name in own and not kind) else (name, "")
    return [Secret(id=name, file=file, variable=variable)]


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where the result's files go, instead of becoming an image."""

    kind: Literal["local", "tar"]
    path: str
    """`-` is stdout, for a tar."""


def output(text: str) -> Output:
    """`type=local,dest=DIR`, `type=tar,dest=FILE`, `DIR`, `-`."""
    if "=" not in text:
        return Output(kind="tar", path="-") if text == "-" else Output(kind="local", path=text)
    fields = _fields(text, ("type", "dest"))
    kind, path = fields.get("type", ""), fields.get("dest", "")
    if kind not in ("local", "tar"):
        raise NotSupported(f"--output type={kind} is not supported by hawse", hint="local and tar are")
    if not path and kind == "local":
        raise ValueError("type=local needs dest=DIR")
    if path == "-" and kind == "local":
        raise ValueError("a directory cannot be written to stdout")
    return Output(kind="local" if kind == "local" else "tar", path=path or "-")


def cache_from(text: str) -> list[str]:
    """An image's name."""
    if "=" in text:
        raise NotSupported(f"--cache-from {text} is not supported by hawse", hint="names of images are")
    return [text]


def progress(text: str) -> str:
    """How the steps are shown."""
    if text == "rawjson":
        raise NotSupported(
            "--progress rawjson is not supported by hawse", hint="auto, plain, tty and quiet are"
        )
    return values.chosen("auto", "plain", "tty", "quiet")(text)


def _fields(text: str, known: Sequence[str]) -> dict[str, str]:
    try:
        [row] = csv.reader([text], strict=True)
    except (csv.Error, ValueError):
        raise ValueError("expected KEY=VALUE,…") from None
    fields: dict[str, str] = {}
    for part in row:
        key, equals, value = part.partition("=")
        if not equals or key.lower() not in known:
            raise ValueError(f"unexpected {part.partition('=')[0]!r}: expected {', '.join(known)}")
        fields[key.lower()] = value
    return fields


_MADE_BY_BUILDKIT = (
    *("allow", "annotation", "attest", "build-context", "builder", "cache-to", "call", "check", "load"),
    *("metadata-file", "no-cache-filter", "provenance", "push", "sbom", "ssh"),
)

BUILD = (
    Flag(
        name="tag",
        short="t",
        metavar="NAME[:TAG]",
        parse=values.one,
        help="what the image is called; may be repeated",
    ),
    Flag(name="file", short="f", metavar="FILE", help="the Dockerfile (PATH/Dockerfile); - for stdin"),
    Flag(
        name="build-arg",
        metavar="NAME[=VALUE]",
        parse=build_argument,
        help="the value of an ARG; without one, ours",
    ),
    Flag(name="target", metavar="STAGE", help="end with this stage"),
    Flag(name="no-cache", help="carry out every step"),
    Flag(
        name="cache-from",
        metavar="IMAGE",
        parse=cache_from,
        help="an image on that host whose steps count as cached; may be repeated",
    ),
    Flag(name="pull", help="ask registries for newer base images"),
    Flag(name="label", metavar="NAME=VALUE", parse=values.pair, help="a label of the image"),
    Flag(
        name="secret",
        metavar="id=NAME,src=FILE",
        parse=secret,
        help="for RUN --mount=type=secret; or env=VARIABLE",
    ),
    Flag(name="network", metavar="MODE", help="of RUN: default, none or host"),
    Flag(name="add-host", metavar="NAME:IP", parse=values.extra_host, help="a line of /etc/hosts for RUN"),
    Flag(name="iidfile", metavar="FILE", help="write the image's id there"),
    Flag(
        name="progress",
        metavar="HOW",
        parse=progress,
        help="auto, plain, tty or quiet",
    ),
    Flag(name="quiet", short="q", help="say only the image's id"),
    Flag(
        name="output",
        short="o",
        metavar="DIR|-|type=…,dest=…",
        parse=output,
        help="its files to a directory, or as a tar, instead of an image",
    ),
    Flag(name="platform", metavar="OS/ARCH", help="that of the host that builds"),
    Flag(name="shm-size", metavar="SIZE", parse=values.size, help="of /dev/shm for RUN"),
    Flag(name="memory", short="m", metavar="SIZE", parse=values.size, help="what RUN may use"),
    Flag(name="memory-swap", metavar="SIZE", parse=values.size_or_unlimited, help="memory and swap together"),
    Flag(name="cpu-shares", short="c", metavar="N", parse=values.integer, help="the weight of RUN"),
    Flag(name="cpu-period", metavar="N", parse=values.integer, help="microseconds"),
    Flag(name="cpu-quota", metavar="N", parse=values.integer, help="microseconds in each period"),
    Flag(name="cpuset-cpus", metavar="LIST", help="which CPUs"),
    Flag(name="cpuset-mems", metavar="LIST", help="which memory nodes"),
    Flag(name="ulimit", metavar="NAME=SOFT[:HARD]", parse=values.ulimit, help="a limit of RUN's processes"),
    Flag(name="rm", help="no container of a step stays in any case"),
    Flag(name="force-rm", help="the same"),
    Flag(name="send", metavar="PATTERN", help="then send the image to these hosts"),
    Flag(name="disable-content-trust", help="no signatures are checked; the default"),
    *(
        Flag(name=name, refused=True)
        for name in ("cgroup-parent", "compress", "isolation", "security-opt", "squash")
    ),
    *(Flag(name=name, refused=True) for name in _MADE_BY_BUILDKIT),
)

_PLAIN = {
    "target": "target",
    "network": "networkmode",
    "platform": "platform",
    "shm-size": "shmsize",
    "memory": "memory",
    "memory-swap": "memswap",
    "cpu-shares": "cpushares",
    "cpu-period": "cpuperiod",
    "cpu-quota": "cpuquota",
    "cpuset-cpus": "cpusetcpus",
    "cpuset-mems": "cpusetmems",
    "no-cache": "nocache",
    "pull": "pull",
}


def build_query(given: Given, dockerfile: str) -> Json:
    """Of POST /hawse/v1/build."""
    options = given.options
    query: Json = {"dockerfile": dockerfile}
    query |= {there: options[here] for here, there in _PLAIN.items() if here in options}
    if "tag" in options:
        query["t"] = options["tag"]
    if "add-host" in options:
        query["extrahosts"] = options["add-host"]
    if "build-arg" in options:
        query["buildargs"] = json.dumps(options["build-arg"])
    if "cache-from" in options:
        query["cachefrom"] = json.dumps(options["cache-from"])
    if "label" in options:
        query["labels"] = json.dumps(options["label"])
    if "ulimit" in options:
        query["ulimits"] = json.dumps(list(options["ulimit"].values()))
    return query


def first_line(secrets: Sequence[Secret]) -> bytes:
    """What stands before the context's tar. Not to be shown."""
    return secrets_line({one.id: one.content() for one in secrets})


def secrets_line(contents: Mapping[str, bytes]) -> bytes:
    encoded = {name: base64.b64encode(content).decode() for name, content in contents.items()}
    return json.dumps({"secrets": encoded}).encode() + b"\n"
