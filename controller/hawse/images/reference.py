"""Names of images, as Docker reads them: `nginx` is `docker.io/library/nginx:latest`."""

from __future__ import annotations

import re

from hawse_agent.errors import InputError

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_REGISTRY = re.compile(r"[a-zA-Z0-9.-]+(:[0-9]+)?|\[[0-9a-fA-F:]+\](:[0-9]+)?")
_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def canonical(reference: str) -> str:
    """The full form: registry, path, and a tag or digest."""
    rest, _, digest = reference.partition("@")
    head, slash, tail = rest.partition("/")
    if not slash or not ("." in head or ":" in head or head == "localhost"):
        head, tail = "docker.io", rest
    path, colon, tag = tail.partition(":")
    if head == "docker.io" and "/" not in path:
        path = f"library/{path}"
    if not _REGISTRY.fullmatch(head) or not _PATH.fullmatch(path) or (colon and not _TAG.fullmatch(tag)):
        raise InputError(f"not the name of an image: {reference!r}", hint="names are lower case: name[:tag]")
    if digest:
        if not _DIGEST.fullmatch(digest):
            raise InputError(f"not a digest: {digest!r}")
        return f"{head}/{path}@{digest}"
    return f"{head}/{path}:{tag or 'latest'}"


def familiar(reference: str) -> str:
    """The short form that people write: what `canonical` adds is left out, but for the tag."""
    return reference.removeprefix("docker.io/").removeprefix("library/")
