"""Registries: one client for hosts and for the controller (OCI distribution, Docker registry v2).

    client = Client(settings)
    with client.repository(reference.parse("nginx"), credentials) as repository:
        index = repository.manifest("1.27")
        for piece in repository.blob(layer, offset=0): …

Reading goes to the mirrors first, in their order, then to the registry itself; credentials go to that alone.
Whatever fails in passing is tried again. What is read is as the other side sent it: blobs are the caller's to
verify, manifests are verified here.
"""

from __future__ import annotations

import http.client
import os
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from hawse_agent.distribution import manifest, reference
from hawse_agent.distribution.cancel import Cancel, Stopped
from hawse_agent.distribution.connections import Body, Connections, Response
from hawse_agent.distribution.credentials import NOBODY, Credentials
from hawse_agent.distribution.documents import MAX_JSON, parse_json, sha256
from hawse_agent.distribution.endpoint import Endpoint, Patience, Refused, Tokens, Transient, reason
from hawse_agent.distribution.manifest import Descriptor, Manifest, Platform
from hawse_agent.distribution.reference import Reference
from hawse_agent.distribution.settings import RegistrySettings, mirror_url
from hawse_agent.distribution.trust import Trust
from hawse_agent.errors import HawseError, HostRefused, InputError, NotFound, ProtocolError, Unauthorized

T = TypeVar("T")

HUB_HOST = "registry-1.docker.io"
_DENIED = "repository does not exist or may require 'docker login'"
_UNSAID = {
    401: "unauthorized: authentication required",
    403: "denied: requested access to the resource is denied",
}
"""What Docker says for a registry that says nothing, as in the answer to a HEAD."""
_MOST_TAGS = 100_000
_NEXT = re.compile(r"<([^>]*)>\s*;.*rel=\"?next\"?")


@dataclass(frozen=True, kw_only=True)
class Document:
    """A manifest or an index, as it came."""

    digest: str
    media_type: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a name stands for, down to one image of one platform."""

    top: Document
    """What the name itself is: an index, or the manifest."""
    document: Document
    """The manifest."""
    manifest: Manifest


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A blob to be sent. `open` gives its pieces from an offset on, as often as need be."""

    open: Callable[[int], Iterator[bytes]]
    size: int | None
    """None: not known before the end."""
    digest: Callable[[], str]
    """Asked when all has been sent."""


class Client:
    """Made once. Holds tokens until they expire, and nothing else."""

    def __init__(self, settings: RegistrySettings, environment: Mapping[str, str] = os.environ) -> None:
        settings.check()
        self.settings = settings
        self._trust = Trust(settings, environment)
        self._tokens = Tokens()

    def repository(
        self,
        name: Reference,
        credentials: Credentials = NOBODY,
        *,
        push: bool = False,
        mounts_from: Sequence[str] = (),
    ) -> Repository:
        """To be used as a context. `mounts_from` are paths of repositories there that layers may be taken
        from."""
        connections = Connections(self._trust)
        actions = "pull,push" if push else "pull"
        origin = Endpoint(
            connections,
            self._tokens,
            address=host_of_registry(name.registry),
            credentials=credentials,
            scopes=[
                f"repository:{name.path}:{actions}",
                *(f"repository:{path}:pull" for path in mounts_from),
            ],
        )
        mirrors = []
        for mirror in () if push else self.settings.mirrors.get(name.registry, ()):
            url = mirror_url(mirror)
            mirrors.append(
                Endpoint(
                    connections,
                    self._tokens,
                    address=url.netloc,
                    path=url.path,
                    schemes=[url.scheme],
                    scopes=[f"repository:{name.path}:pull"],
                )
            )
        return Repository(name, connections, [*mirrors, origin])

    @contextmanager
    def endpoint(self, address: str, credentials: Credentials = NOBODY) -> Iterator[Endpoint]:
        """A host, for one question."""
        with Connections(self._trust) as connections:
            yield Endpoint(connections, self._tokens, address=address, credentials=credentials)

    def log_in(self, address: str, credentials: Credentials) -> str:
        """Whether the registry takes these credentials. Gives a refresh token that stands for the password,
        or "".

        Raises Unauthorized in Docker's words, HostRefused when the registry is out of reach.
        """
        with self.endpoint(host_of_registry(address), credentials) as endpoint:
            try:
                return endpoint.log_in("/v2/")
            except Refused as error:
                what = f'Get "{endpoint.url("/v2/")}"'
                if error.status in (401, 403):
                    raise Unauthorized(
                        f"{what}: {error.said or 'unauthorized: authentication required'}"
                    ) from error
                raise HostRefused(f"{what}: the registry answers {error}") from error
            except Transient as error:
                raise HostRefused(f'Get "{endpoint.url("/v2/")}": {reason(error)}') from error


def host_of_registry(registry: str) -> str:
    """Where a registry answers: docker.io does so at another name."""
    return HUB_HOST if registry == reference.DEFAULT_REGISTRY else registry


class Repository:
    """One repository of one registry, for the time of one pull or push. Used by several threads.

    Raises NotFound for what it does not have or does not show, HostRefused when it cannot be reached or
    refuses, ProtocolError for what no registry may answer, Stopped after `stop`.
    """

    def __init__(self, name: Reference, connections: Connections, endpoints: Sequence[Endpoint]) -> None:
        self.name = name
        self._connections = connections
        self._endpoints = list(endpoints)
        """Those that are left to be asked; the last is the registry itself."""
        self._origin = endpoints[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def cancel(self) -> Cancel:
        """Said when it was stopped, or left."""
        return self._connections.cancel

    def stop(self) -> None:
        """From any thread: what goes on raises Stopped."""
        self._connections.stop()

    # -- reading ---------------------------------------------------------------------------------

    def manifest(self, tag_or_digest: str) -> Document:
        """Verified, when asked for by its digest."""

        def read(endpoint: Endpoint) -> Document:
            headers = {"Accept": ", ".join(manifest.ACCEPTED)}
            with endpoint.request("GET", self._path(f"manifests/{tag_or_digest}"), headers) as response:
                data = response.read(MAX_JSON)
                digest = sha256(data)
                if ":" in tag_or_digest and digest != tag_or_digest:
                    raise ProtocolError(
                        f"{endpoint.address} sent the manifest {digest} instead of {tag_or_digest}"
                    )
                return Document(digest=digest, media_type=_media_type(response), data=data)

        return self._read(read)

    def find(self, tag_or_digest: str, wanted: Platform) -> Found:
        """The manifest of a platform. Raises NotFound when an index has none, InputError for what is no
        image."""
        shown = self.name.familiar
        top = document = self.manifest(tag_or_digest)
        for _ in range(3):  # an index may hold an index
            parsed = parse_json(document.data, f"the manifest of {shown}")
            if not manifest.is_index(parsed):
                return Found(top=top, document=document, manifest=manifest.parse(parsed, shown))
            document = self.manifest(manifest.choose(parsed, wanted, shown).digest)
        raise InputError(f"{shown} is an index in an index in an index")

    def describe(self, tag_or_digest: str) -> Descriptor | None:
        """Digest, size and type of a manifest, without the manifest; None when there is none."""

        def ask(endpoint: Endpoint) -> Descriptor | None:
            headers = {"Accept": ", ".join(manifest.ACCEPTED)}
            path = self._path(f"manifests/{tag_or_digest}")
            try:
                with endpoint.request("HEAD", path, headers) as response:
                    return Descriptor(
                        digest=response.headers.get("Docker-Content-Digest", ""),
                        size=_length(response),
                        media_type=_media_type(response),
                    )
            except Refused as error:
                if error.status == 404:
                    return None
                raise

        return self._read(ask)

    def blob(self, blob: Descriptor, offset: int = 0) -> Iterator[bytes]:
        """A blob's pieces from `offset` on; where the connection is cut, it goes on from there.

        A mirror that fails is left for the next endpoint.
        """
        received = offset
        while True:
            endpoint = self._endpoints[0]
            patience = Patience(endpoint)
            try:
                while received < blob.size:
                    try:
                        for piece in self._blob_from(endpoint, blob, received):
                            received += len(piece)
                            if received > blob.size:
                                more = f"more of {blob.digest} than its {blob.size} bytes"
                                raise ProtocolError(f"{endpoint.address} sent {more}")
                            patience.progressed()
                            yield piece
                        if received < blob.size:
                            raise http.client.IncompleteRead(b"", blob.size - received)
                    except (Refused, *Transient) as error:
                        patience.failed(error)
                return
            except (Refused, HawseError, *Transient) as error:
                if isinstance(error, Stopped) or not self.leave(endpoint):
                    raise self._failed(error, blob.digest) from error

    def configuration(self, config: Descriptor) -> bytes:
        """An image's configuration, verified. Raises InputError for one that is too large to be one."""
        if config.size > MAX_JSON:
            raise InputError(f"{config.digest} is larger than any configuration: not an image")
        while True:
            data = b"".join(self.blob(config))
            if (got := sha256(data)) == config.digest:
                return data
            if not self.leave():
                raise ProtocolError(f"blob {config.digest} is damaged: its digest is {got}")

    def leave(self, endpoint: Endpoint | None = None) -> bool:
        """Ask this mirror (by default the one in use) no more; False when there is nobody else to ask."""
        left = endpoint or self._endpoints[0]
        if left is self._origin:
            return False
        self._endpoints = [other for other in self._endpoints if other is not left]
        return True

    def _blob_from(self, endpoint: Endpoint, blob: Descriptor, offset: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with endpoint.request("GET", self._path(f"blobs/{blob.digest}"), headers) as response:
            skip = offset if response.status != 206 else 0  # this server has no ranges: from the start again
            for piece in response.pieces():
                if skip:
                    skipped = min(skip, len(piece))
                    skip -= skipped
                    piece = piece[skipped:]
                    if not piece:
                        continue
                yield piece

    def tags(self) -> list[str]:
        """All of them, in the registry's order."""

        def page(path: str) -> tuple[list[str], str]:
            def read(endpoint: Endpoint) -> tuple[list[str], str]:
                with endpoint.request("GET", path) as response:
                    found = parse_json(response.read(MAX_JSON), f"the tags of {self.name.familiar_name}")
                    names = found.get("tags") or []
                    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                        raise ProtocolError(f"{endpoint.address} sent a damaged list of tags")
                    following = _NEXT.search(response.headers.get("Link", ""))
                    return names, urllib.parse.urljoin(response.url, following[1]) if following else ""

            return self._read(read)

        tags: dict[str, None] = {}
        following = self._path("tags/list?n=1000")
        while following:
            before = len(tags)
            names, following = page(following)
            tags |= dict.fromkeys(names)
            if len(tags) > _MOST_TAGS or (following and len(tags) == before):
                raise ProtocolError(f"the tags of {self.name.familiar_name} have no end")
        return list(tags)

    # -- writing ---------------------------------------------------------------------------------

    def blob_size(self, digest: str) -> int | None:
        """None when the repository does not have it."""

        def ask() -> int | None:
            try:
                with self._origin.request("HEAD", self._path(f"blobs/{digest}")) as response:
                    return _length(response)
            except Refused as error:
                if error.status == 404:
                    return None
                raise

        return self._tried(ask, digest)

    def begin_upload(self, mount: str = "", source: str = "") -> str | None:
        """Where the upload of a blob goes on. With `mount`, a digest, the registry is asked to take the blob
        from the repository `source`; None when it has done so."""
        query = f"?{urllib.parse.urlencode({'mount': mount, 'from': source})}" if mount else ""

        def begin() -> str | None:
            with self._origin.request("POST", self._path(f"blobs/uploads/{query}")) as response:
                if response.status == 201:
                    return None
                return _location(response)

        return self._tried(begin, mount or "upload")

    def abandon_upload(self, location: str) -> None:
        """An upload that was begun is not needed. Not every registry listens: those forget it in time."""

        def abandon() -> None:
            try:
                with self._origin.request("DELETE", location) as response:
                    response.read(MAX_JSON)
            except Refused as error:
                if error.status not in (404, 405):
                    raise

        self._tried(abandon, "upload")

    def upload(self, blob: Upload, location: str | None = None) -> None:
        """Send a blob. An upload that is cut goes on where the registry says it has come to."""
        where, offset, cut = location or self.begin_upload() or "", 0, False
        patience = Patience(self._origin)
        while True:
            try:
                if cut:
                    before = offset
                    where, offset = self._resumed(where)
                    if offset > before:  # a registry that lets it begin anew again and again is given up
                        patience.progressed()
                self._finish(self._patch(where, blob, offset), blob.digest())
                return
            except (Refused, *Transient) as error:
                cut = True
                try:
                    patience.failed(error)
                except (Refused, *Transient):
                    raise self._failed(error, "upload", push=True) from error

    def put_manifest(self, tag_or_digest: str, document: Document) -> None:
        data = document.data

        def put() -> None:
            body = Body(open=lambda: [data], size=len(data))
            headers = {"Content-Type": document.media_type}
            path = self._path(f"manifests/{tag_or_digest}")
            with self._origin.request("PUT", path, headers, body) as response:
                response.read(MAX_JSON)

        self._tried(put, tag_or_digest)

    def _patch(self, where: str, blob: Upload, offset: int) -> str:
        """All that follows `offset`; gives the next location."""
        headers = {"Content-Type": "application/octet-stream"}
        left = None if blob.size is None else blob.size - offset
        if offset and left:
            headers["Content-Range"] = f"{offset}-{offset + left - 1}"
        if left is not None and left <= 0:
            return where
        with self._origin.request(
            "PATCH", where, headers, Body(open=lambda: blob.open(offset), size=left)
        ) as response:
            response.read(MAX_JSON)
            return _location(response)

    def _finish(self, where: str, digest: str) -> None:
        joint = "&" if urllib.parse.urlsplit(where).query else "?"
        url = f"{where}{joint}{urllib.parse.urlencode({'digest': digest})}"
        with self._origin.request("PUT", url) as response:
            response.read(MAX_JSON)

    def _resumed(self, where: str) -> tuple[str, int]:
        """Where an upload that was cut goes on, and from which byte; a new one when the registry has
        forgotten it."""
        try:
            with self._origin.request("GET", where) as response:
                response.read(MAX_JSON)
                last = re.fullmatch(r"(?:bytes=)?0-(\d+)", response.headers.get("Range", ""))
                # An upload without a byte has the range 0-0, as one with a single byte has.
                if last and last[1] != "0":
                    return _location(response), int(last[1]) + 1
        except Refused as error:
            if error.status >= 500:
                raise
        return self.begin_upload() or "", 0

    # -- errors ----------------------------------------------------------------------------------

    def _path(self, rest: str) -> str:
        return f"/v2/{self.name.path}/{rest}"

    def _read(self, call: Callable[[Endpoint], T]) -> T:
        """From the first of the endpoints that has it."""
        while True:
            endpoint = self._endpoints[0]
            patience = Patience(endpoint)
            try:
                while True:
                    try:
                        return call(endpoint)
                    except (Refused, *Transient) as error:
                        patience.failed(error)
            except (Refused, HawseError, *Transient) as error:
                if isinstance(error, Stopped) or not self.leave(endpoint):
                    raise self._failed(error, "manifest") from error

    def _tried(self, call: Callable[[], T], what: str) -> T:
        patience = Patience(self._origin)
        while True:
            try:
                return call()
            except (Refused, *Transient) as error:
                try:
                    patience.failed(error)
                except (Refused, *Transient):
                    raise self._failed(error, what, push=True) from error

    def _failed(self, error: Exception, what: str, *, push: bool = False) -> HawseError:
        """In Docker's words where it has some."""
        if isinstance(error, HawseError):
            return error
        shown, address = self.name.familiar, self._origin.address
        doing = "push" if push else "pull"
        if isinstance(error, Refused):
            said = error.said
            if error.status in (401, 403):
                said = said or _UNSAID[error.status]
                if push:
                    return Unauthorized(
                        said, hint=f"log in to {self.name.registry} as somebody who may push there"
                    )
                return NotFound(f"pull access denied for {self.name.familiar_name}, {_DENIED}: {said}")
            if error.status == 404 and what == "manifest":
                return NotFound(f"manifest for {shown} not found: {said or 'manifest unknown'}")
            if error.status == 429:
                return HostRefused(
                    f"{doing} {shown}: {address} refuses more for now: {said or 'too many requests'}",
                    hint="log in, wait, or send the image from the controller",
                )
            return HostRefused(f"{doing} {shown}: {address} answers {error} ({what})")
        return HostRefused(
            f"{doing} {shown}: cannot reach the registry {address}: {reason(error)}",
            hint="check the host's network, or send the image from the controller (hawse image send)",
        )


def _media_type(response: Response) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip()


def _length(response: Response) -> int:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else 0


def _location(response: Response) -> str:
    location = response.headers.get("Location", "")
    if not location:
        raise ProtocolError(
            f"{urllib.parse.urlsplit(response.url).netloc} does not say where the upload goes on"
        )
    return urllib.parse.urljoin(response.url, location)
