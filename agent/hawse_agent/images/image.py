"""What an image is: its configuration (OCI and Docker share the format), read with care. Pure.

An image's id is the digest of its configuration's bytes, which are kept as they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hawse_agent.distribution.documents import parse_json
from hawse_agent.distribution.manifest import Descriptor
from hawse_agent.errors import InputError, NotSupported
from hawse_agent.spec.container import HealthCheck


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """What a container of the image gets when its spec does not say otherwise."""

    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""
    healthcheck: HealthCheck | None = None
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    shell: tuple[str, ...] = ()
    onbuild: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class History:
    """One step of the build, oldest first. `empty_layer`: it has no layer."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer of an image: the blob it came as, and what is in it."""

    digest: str
    media_type: str
    size: int
    diff_id: str
    tar_size: int = 0
    """Bytes of the uncompressed tar."""
    content_size: int = 0
    """Bytes of the files in it."""

    @property
    def blob(self) -> Descriptor:
        return Descriptor(digest=self.digest, size=self.size, media_type=self.media_type)


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """What the store's table keeps of an image. `config` is the exact text, so that it hashes to the id."""

    manifest: str
    config: str
    layers: tuple[Layer, ...]
    added: float
    parent: str = ""
    """The image that it was made from on this host."""


@dataclass(frozen=True, kw_only=True)
class Image:
    id: str
    architecture: str
    variant: str
    os: str
    created: str
    author: str
    comment: str
    config: ImageConfig
    diff_ids: tuple[str, ...]
    history: tuple[History, ...]
    layers: tuple[Layer, ...]
    manifest: str
    size: int
    """Bytes of all files, as Docker counts."""
    raw: bytes = field(repr=False)
    """The configuration as it came; its digest is the id."""
    repo_tags: tuple[str, ...] = ()
    """In familiar form: `nginx:latest`."""
    repo_digests: tuple[str, ...] = ()
    """`nginx@sha256:…` of the manifest, when it was pulled."""
    added: float = 0.0
    parent: str = ""
    """The image that it was made from on this host, which may be gone."""

    @property
    def history_sizes(self) -> tuple[int, ...]:
        """What each step of `history` added; some tools write no history, or a shorter one."""
        sizes = iter([layer.content_size for layer in self.layers])
        return tuple(0 if step.empty_layer else next(sizes, 0) for step in self.history)


def image_of(image_id: str, record: ImageRecord, tags: tuple[str, ...], digests: tuple[str, ...]) -> Image:
    raw = record.config.encode()
    document = parse_json(raw, f"the configuration of {image_id}")
    return Image(
        id=image_id,
        architecture=_text(document, "architecture"),
        variant=_text(document, "variant"),
        os=_text(document, "os"),
        created=_text(document, "created"),
        author=_text(document, "author"),
        comment=_text(document, "comment"),
        config=_config(_mapping(document, "config")),
        diff_ids=tuple(layer.diff_id for layer in record.layers),
        history=tuple(_history(entry) for entry in _list(document, "history")),
        layers=record.layers,
        manifest=record.manifest,
        size=sum(layer.content_size for layer in record.layers),
        raw=raw,
        repo_tags=tags,
        repo_digests=digests,
        added=record.added,
        parent=record.parent,
    )


def diff_ids(document: Mapping[str, Any], what: str) -> tuple[str, ...]:
    """The layers that a configuration names; raises InputError for what is no container image."""
    if _text(document, "os") not in ("", "linux"):
        raise NotSupported(f"{what} is for {document['os']}, not for Linux")
    rootfs = document.get("rootfs")
    if not isinstance(rootfs, dict):
        raise InputError(f"{what} is not a container image: its configuration has no rootfs")
    return _texts(rootfs, "diff_ids") or ()


def _config(data: Mapping[str, Any]) -> ImageConfig:
    return ImageConfig(
        entrypoint=_texts(data, "Entrypoint"),
        cmd=_texts(data, "Cmd"),
        env=_texts(data, "Env") or (),
        working_dir=_text(data, "WorkingDir"),
        user=_text(data, "User"),
        stop_signal=_text(data, "StopSignal"),
        healthcheck=_health(_mapping(data, "Healthcheck")),
        exposed_ports=tuple(sorted(_mapping(data, "ExposedPorts"))),
        volumes=tuple(sorted(_mapping(data, "Volumes"))),
        labels={key: str(value) for key, value in _mapping(data, "Labels").items()},
        shell=_texts(data, "Shell") or (),
        onbuild=_texts(data, "OnBuild") or (),
    )


def _health(data: Mapping[str, Any]) -> HealthCheck | None:
    """Times are nanoseconds; 0 is the default."""
    test = _texts(data, "Test")
    if not test:
        return None
    default = HealthCheck(test=test)

    def seconds(key: str, otherwise: float) -> float:
        value = data.get(key)
        return value / 1e9 if isinstance(value, int | float) and value > 0 else otherwise

    retries = data.get("Retries")
    return HealthCheck(
        test=test,
        interval=seconds("Interval", default.interval),
        timeout=seconds("Timeout", default.timeout),
        start_period=seconds("StartPeriod", default.start_period),
        start_interval=seconds("StartInterval", default.start_interval),
        retries=retries if isinstance(retries, int) and retries > 0 else default.retries,
    )


def _history(data: Any) -> History:
    if not isinstance(data, dict):
        raise InputError("the history of an image configuration is damaged")
    return History(
        created=_text(data, "created"),
        created_by=_text(data, "created_by"),
        author=_text(data, "author"),
        comment=_text(data, "comment"),
        empty_layer=data.get("empty_layer") is True,
    )


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{key} of an image configuration is not text")
    return value


def _texts(data: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    value = data.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{key} of an image configuration is not a list of texts")
    return tuple(value)


def _list(data: Mapping[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InputError(f"{key} of an image configuration is not a list")
    return value


def _mapping(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{key} of an image configuration is not a mapping")
    return value
