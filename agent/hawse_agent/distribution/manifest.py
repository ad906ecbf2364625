"""Manifests and indexes, in the media types of OCI and of Docker. Pure.

What a document is, is told by its fields; media types only rule out what cannot be unpacked.
"""

from __future__ import annotations

import platform as machine
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hawse_agent.distribution.reference import is_digest
from hawse_agent.errors import InputError, NotFound, NotSupported

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = f"{OCI_LAYER}+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
ACCEPTED = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)

_CONFIGS = (OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream", "")
"""The last two are of registries and tools of old."""

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
}


@dataclass(frozen=True, kw_only=True)
class Platform:
    architecture: str
    variant: str = ""
    os: str = "linux"

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    digest: str
    size: int
    media_type: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    config: Descriptor
    layers: tuple[Descriptor, ...]


def host_platform() -> Platform:
    return platform_of_machine(machine.machine())


def platform_of_machine(name: str) -> Platform:
    """By the kernel's name for it: x86_64, aarch64."""
    architecture, variant = _ARCHITECTURES.get(name, (name, ""))
    return Platform(architecture=architecture, variant=variant)


def parse_platform(text: str) -> Platform:
    """`linux/arm64/v8`, `linux/amd64`, or only `arm64`."""
    parts = text.lower().split("/")
    if len(parts) == 1 and parts[0] != "linux":
        return Platform(architecture=parts[0])
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise InputError(f"not a platform (os/arch[/variant]): {text!r}")
    return Platform(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else "")


def is_index(document: Mapping[str, Any]) -> bool:
    return isinstance(document.get("manifests"), list)


def parse(document: Mapping[str, Any], what: str) -> Manifest:
    """Raises InputError for what is not the manifest of an image."""
    if document.get("schemaVersion") == 1 or "fsLayers" in document:
        raise NotSupported(
            f"{what} is a manifest of schema version 1", hint="push it again with a newer tool"
        )
    config, layers = document.get("config"), document.get("layers")
    if not isinstance(config, dict) or not isinstance(layers, list):
        raise InputError(f"{what} is not the manifest of an image")
    parsed = Manifest(
        config=descriptor(config, what), layers=tuple(descriptor(layer, what) for layer in layers)
    )
    kind = document.get("artifactType") or parsed.config.media_type
    if parsed.config.media_type not in _CONFIGS:
        raise NotSupported(f"{what} is not a container image, but an artifact of type {kind}")
    for layer, data in zip(parsed.layers, layers, strict=True):
        if data.get("urls") or "foreign" in layer.media_type:
            raise NotSupported(f"{what} has a foreign layer, which is not in its registry ({layer.digest})")
        if "encrypted" in layer.media_type:
            raise NotSupported(f"{what} has a layer that cannot be unpacked ({layer.media_type})")
    return parsed


def media_type(document: Mapping[str, Any]) -> str:
    """Of a manifest; OCI's need not say it."""
    return str(document.get("mediaType") or OCI_MANIFEST)


def as_oci(layer: Descriptor) -> Descriptor:
    """The same layer under the name that it has in a manifest of OCI."""
    if not layer.media_type.startswith(DOCKER_LAYER):
        return layer
    compression = layer.media_type.removeprefix(DOCKER_LAYER).replace(".", "+")
    return Descriptor(digest=layer.digest, size=layer.size, media_type=f"{OCI_LAYER}{compression}")


def descriptor(data: Any, what: str) -> Descriptor:
    if (
        not isinstance(data, dict)
        or not is_digest(data.get("digest"))
        or type(data.get("size")) is not int
        or data["size"] < 0
    ):
        raise InputError(f"{what} has a damaged descriptor")
    return Descriptor(digest=data["digest"], size=data["size"], media_type=str(data.get("mediaType") or ""))


def choose(document: Mapping[str, Any], wanted: Platform, what: str) -> Descriptor:
    """The entry of an index for a platform. Without its variant a 32-bit ARM takes any lower one."""
    candidates: list[tuple[int, Descriptor]] = []
    known: list[str] = []
    for entry in document["manifests"]:
        described = descriptor(entry, what)
        offered = platform_of(entry)
        if offered is None:
            continue
        known.append(str(offered))
        rank = _rank(offered, wanted)
        if rank is not None:
            candidates.append((rank, described))
    if not candidates:
        raise NotFound(
            f"no matching manifest for {wanted} in the manifest list entries of {what}",
            hint=f"it offers {', '.join(dict.fromkeys(known))}" if known else "",
        )
    return min(candidates, key=lambda candidate: candidate[0])[1]


def fits(entry: Mapping[str, Any], wanted: Platform) -> bool:
    """Whether an entry of an index is for the platform, or says nothing of one."""
    if not isinstance(entry.get("platform"), dict):
        return True
    offered = platform_of(entry)
    return offered is not None and _rank(offered, wanted) is not None


def runs(offered: Platform, wanted: Platform) -> bool:
    """Whether what is for one platform runs on another."""
    return _rank(offered, wanted) is not None


def platform_of(entry: Any) -> Platform | None:
    """What an entry of an index is for; None for what is no image: attestations of BuildKit."""
    data = entry.get("platform")
    if not isinstance(data, dict):
        return host_platform()  # an index of one image often says nothing
    if data.get("architecture") == "unknown" or data.get("os") == "unknown":
        return None
    return Platform(
        architecture=str(data.get("architecture") or ""),
        variant=str(data.get("variant") or ""),
        os=str(data.get("os") or "linux"),
    )


def _rank(offered: Platform, wanted: Platform) -> int | None:
    """0 is the best; None does not run there."""
    if (offered.os, offered.architecture) != (wanted.os, wanted.architecture):
        return None
    if offered.variant == wanted.variant:
        return 0
    if wanted.architecture == "arm" and wanted.variant:
        lower, upper = _version(offered.variant or "v7"), _version(wanted.variant)
        return 1 + upper - lower if lower <= upper else None
    if wanted.architecture == "amd64":
        lower, upper = _version(offered.variant or "v1"), _version(wanted.variant or "v1")
        return 1 + upper - lower if lower <= upper else None
    return 1 if not wanted.variant or offered.variant in ("", "v8") else None


def _version(variant: str) -> int:
    number = variant.removeprefix("v")
    return int(number) if number.isdecimal() else 0
