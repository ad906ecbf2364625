"""Names of images, as Docker reads them: `nginx` is `docker.io/library/nginx:latest`.

    canonical   docker.io/library/nginx:1.27     what is stored and compared
    familiar    nginx:1.27                       what people read and write

A name with a tag and a digest is the digest's: the tag says nothing more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hawse_agent.errors import InputError

DEFAULT_REGISTRY = "docker.io"
HUB_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io")
"""What Docker's own registry is called, here and there."""
DEFAULT_TAG = "latest"

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{64}")
_MAX_NAME = 255


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Exactly one of `tag` and `digest` is set."""

    registry: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Without tag and digest."""
        return f"{self.registry}/{self.path}"

    @property
    def canonical(self) -> str:
        return self.name + self._suffix

    @property
    def familiar(self) -> str:
        return self.familiar_name + self._suffix

    @property
    def familiar_name(self) -> str:
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        official = self.path.removeprefix("library/")
        return official if "/" not in official else self.path

    @property
    def _suffix(self) -> str:
        return f"@{self.digest}" if self.digest else f":{self.tag}"


def is_digest(value: object) -> bool:
    """Of an algorithm that is known: only such a one may become the name of a file."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def parse(text: str) -> Reference:
    """Raises InputError for what is not the name of an image."""
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise InputError(f"invalid reference format: {digest!r} is not a digest (sha256:…)")
    registry, slash, tail = rest.partition("/")
    if not slash or not is_registry(registry):
        registry, tail = DEFAULT_REGISTRY, rest
    if registry in HUB_NAMES:
        registry = DEFAULT_REGISTRY
    path, colon, tag = tail.partition(":")
    if _ID.fullmatch(path):
        raise InputError(f"invalid repository name ({path}), cannot specify 64-byte hexadecimal strings")
    if registry == DEFAULT_REGISTRY and "/" not in path:
        path = f"library/{path}"
    if path != path.lower():
        raise InputError(f"invalid reference format: repository name ({path}) must be lowercase")
    name = f"{registry}/{path}"
    if not REGISTRY.fullmatch(registry) or not _PATH.fullmatch(path) or len(name) > _MAX_NAME:
        raise InputError(f"invalid reference format: {text!r}")
    if colon and not _TAG.fullmatch(tag):
        raise InputError(f"invalid reference format: {tag!r} is not a tag, in {text!r}")
    return Reference(registry=registry, path=path, tag="" if digest else tag or DEFAULT_TAG, digest=digest)


def is_registry(head: str) -> bool:
    """Whether the first part of a name, before a slash, is a registry; else it is of Docker Hub's."""
    return "." in head or ":" in head or head == "localhost" or head != head.lower()


def canonical(text: str) -> str:
    """The full form: registry, path, and a tag or digest."""
    return parse(text).canonical


def familiar(text: str) -> str:
    """The short form that people write, with its tag or digest."""
    return parse(text).familiar


def without_defaults(text: str) -> str:
    """A name as it was written, without what is only there to be exact; nothing is added or checked."""
    return text.removeprefix("docker.io/").removeprefix("library/")


def is_name_only(text: str) -> bool:
    """Whether neither a tag nor a digest is given."""
    return "@" not in text and ":" not in text.rpartition("/")[2]
