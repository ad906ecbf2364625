"""Pulls images from registries (OCI distribution, Docker registry v2).

    manifest, or index → manifest of the platform      each verified by its digest
    configuration and layers that are not here yet     three at a time, resumed where they were cut
    commit_manifest                                     unpack and name

Without credentials, with a Bearer token of the registry's own token service, or Basic. Credentials go only to
the registry and to the token service that it names, never along a redirect to another host, and never in the
clear unless the registry is on loopback or is configured as insecure.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import ipaddress
import json
import re
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import IO, Any

from hawse_agent import __version__
from hawse_agent.errors import HawseError, HostRefused, InputError, NotFound, OutOfSpace, ProtocolError
from hawse_agent.images import manifest, reference
from hawse_agent.images.blobs import MAX_JSON, parse_json
from hawse_agent.images.manifest import Descriptor, Platform
from hawse_agent.images.reference import Reference
from hawse_agent.images.store import Image, ImageStore

Progress = Callable[[dict[str, Any]], None]

_PIECE = 1 << 18
_TIMEOUT = 30.0
_ATTEMPTS = 5
_PARALLEL = 3
_PROGRESS_SECONDS = 0.2
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_DENIED = "repository does not exist or may require 'docker login'"


def pull(
    ref: str,
    store: ImageStore,
    auth: Mapping[str, Any] | None,
    progress: Progress,
    *,
    platform: str = "",
    insecure: Sequence[str] = (),
) -> Image:
    """Make the image present under its name; `progress` hears what Docker's clients expect.

    `auth` is the object of X-Registry-Auth. Raises NotFound for what the registry does not have or does not
    show, HostRefused when it cannot be reached, ProtocolError for damaged data, OutOfSpace.
    """
    name = reference.parse(ref)
    wanted = manifest.parse_platform(platform) if platform else manifest.host_platform()
    registry = _Registry(name, auth or {}, insecure)
    top, digest, data = _manifest(registry, name, wanted)
    progress({"status": f"Pulling from {name.path}", "id": name.tag or name.digest})
    parsed = manifest.parse(parse_json(data, digest), digest)
    before = _present(store, name)
    blobs = {blob.digest: blob for blob in (parsed.config, *parsed.layers)}
    fetched: list[str] = []
    try:
        fetched.append(store.blobs.put(data))
        _download(registry, store, list(blobs.values()), parsed.config.digest, fetched, progress)
        image = store.commit_manifest(digest, [] if name.digest else [name.canonical])
    except HawseError as error:
        if isinstance(error, OutOfSpace) or not isinstance(error, HostRefused):
            store.forget_blobs(fetched)  # a cut connection leaves the whole blobs for the next try
        raise
    for layer in parsed.layers:
        progress({"status": "Pull complete", "progressDetail": {}, "id": _short(layer.digest)})
    store.note_digest(image.id, f"{name.name}@{top}")
    progress({"status": f"Digest: {top}"})
    changed = "Image is up to date" if before == image.id else "Downloaded newer image"
    progress({"status": f"Status: {changed} for {name.familiar}"})
    return store.get(image.id)


def _present(store: ImageStore, name: Reference) -> str:
    try:
        return store.get(name.canonical).id
    except NotFound:
        return ""


def _manifest(registry: _Registry, name: Reference, wanted: Platform) -> tuple[str, str, bytes]:
    """Digest of what the name stands for, then the manifest of the platform: its digest and bytes."""
    top, data = registry.manifest(name.digest or name.tag)
    digest = top
    for _ in range(3):  # an index may hold an index
        document = parse_json(data, f"the manifest of {name.familiar}")
        if not manifest.is_index(document):
            return top, digest, data
        digest, data = registry.manifest(manifest.choose(document, wanted, name.familiar).digest)
    raise InputError(f"{name.familiar} is an index in an index in an index")


# -- blobs ---------------------------------------------------------------------------------------


def _download(
    registry: _Registry,
    store: ImageStore,
    blobs: Sequence[Descriptor],
    config: str,
    fetched: list[str],
    progress: Progress,
) -> None:
    """Those that are not here, a few at a time. The first failure stops all."""
    lock, stop = threading.Lock(), threading.Event()

    def tell(blob: Descriptor, status: str, **detail: int) -> None:
        if blob.digest != config:
            with lock:
                progress({"status": status, "progressDetail": detail, "id": _short(blob.digest)})

    def fetch(blob: Descriptor) -> None:
        shown = 0.0
        with store.blob_writer(blob.digest, blob.size) as writer:
            for piece in registry.blob(blob):
                writer.write(piece)
                if stop.is_set():
                    raise HostRefused("the pull was stopped")
                if time.monotonic() - shown > _PROGRESS_SECONDS:
                    shown = time.monotonic()
                    tell(blob, "Downloading", current=writer.size, total=blob.size)
        fetched.append(blob.digest)
        tell(blob, "Download complete")

    absent = set(store.missing_blobs([blob.digest for blob in blobs]))
    for blob in blobs:
        tell(blob, "Pulling fs layer" if blob.digest in absent else "Already exists")
    with ThreadPoolExecutor(max_workers=_PARALLEL, thread_name_prefix="pull") as pool:
        futures = [pool.submit(fetch, blob) for blob in blobs if blob.digest in absent]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = [error for future in done if (error := future.exception()) is not None]
            if failed:
                raise failed[0]
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


# -- the protocol --------------------------------------------------------------------------------


class _Registry:
    """One repository of one registry, for the time of one pull. Used by several threads."""

    def __init__(self, name: Reference, auth: Mapping[str, Any], insecure: Sequence[str]) -> None:
        self._name = name
        self._auth = auth
        self._host = "registry-1.docker.io" if name.registry == reference.DEFAULT_REGISTRY else name.registry
        self._insecure = _is_loopback(self._host) or name.registry in insecure
        self._schemes = ["https", "http"] if self._insecure else ["https"]
        self._lock = threading.Lock()
        self._authorization = ""
        self._reached = False
        """It has answered, so that a failure now is a passing one."""
        context = ssl.create_default_context()
        if self._insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _Redirects())

    def manifest(self, tag_or_digest: str) -> tuple[str, bytes]:
        """Its digest and bytes."""
        headers = {"Accept": ", ".join(manifest.ACCEPTED)}
        data = self._retrying(lambda: self._read(f"manifests/{tag_or_digest}", headers))
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if ":" in tag_or_digest and digest != tag_or_digest:
            raise ProtocolError(f"{self._host} sent the manifest {digest} instead of {tag_or_digest}")
        return digest, data

    def blob(self, blob: Descriptor) -> Iterator[bytes]:
        """A blob in pieces; where the connection is cut, the next one goes on from there."""
        received, failures = 0, 0
        while True:
            before = received
            try:
                for piece in self._blob_from(blob, received):
                    received += len(piece)
                    if received > blob.size:
                        raise ProtocolError(
                            f"{self._host} sent more of {blob.digest} than its {blob.size} bytes"
                        )
                    yield piece
                if received == blob.size:
                    return
                raise http.client.IncompleteRead(b"", blob.size - received)
            except (OSError, http.client.HTTPException) as error:
                failures = 1 if received > before else failures + 1
                if failures >= _ATTEMPTS or not self._passes(error):
                    raise self._failed(error) from error
                time.sleep(_pause(failures))

    def _blob_from(self, blob: Descriptor, offset: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._open(f"blobs/{blob.digest}", headers) as response:
            skip = offset if response.status != 206 else 0  # this server has no ranges: from the start again
            while piece := response.read(_PIECE):
                if skip:
                    skipped = min(skip, len(piece))
                    skip -= skipped
                    piece = piece[skipped:]
                    if not piece:
                        continue
                yield piece

    def _read(self, path: str, headers: Mapping[str, str]) -> bytes:
        with self._open(path, headers) as response:
            data = response.read(MAX_JSON + 1)
        if len(data) > MAX_JSON:
            raise ProtocolError(f"{self._host} sent a manifest of more than {MAX_JSON} bytes")
        return bytes(data)

    def _retrying(self, call: Callable[[], bytes]) -> bytes:
        for failures in range(1, _ATTEMPTS + 1):
            try:
                return call()
            except (OSError, http.client.HTTPException) as error:
                if failures == _ATTEMPTS or not self._passes(error):
                    raise self._failed(error) from error
                time.sleep(_pause(failures))
        raise AssertionError("unreachable")

    def _open(self, path: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """The answer to a request below the repository; authenticates when the registry asks for it."""
        used = self._authorization
        try:
            return self._request(path, headers, used)
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise
            challenges = error.headers.get_all("WWW-Authenticate") or []
            error.close()
        with self._lock:
            if self._authorization == used:  # no other thread has got a new one meanwhile
                self._authorization = self._authenticate(challenges)
        return self._request(path, headers, self._authorization)

    def _request(self, path: str, headers: Mapping[str, str], authorization: str) -> http.client.HTTPResponse:
        """By https, and where plain http is allowed by that when https is not spoken."""
        while True:
            url = f"{self._schemes[0]}://{self._host}/v2/{self._name.path}/{path}"
            try:
                response = self._send(url, headers, authorization)
            except urllib.error.HTTPError:
                self._reached = True
                raise
            except (OSError, http.client.HTTPException):
                if self._reached or len(self._schemes) == 1:
                    raise
                self._schemes = ["http"]
            else:
                self._reached = True
                return response

    def _send(
        self, url: str, headers: Mapping[str, str], authorization: str, body: bytes | None = None
    ) -> http.client.HTTPResponse:
        request = urllib.request.Request(url, data=body, headers=dict(headers))
        request.add_header("User-Agent", f"hawse/{__version__}")
        if authorization:
            request.add_header("Authorization", authorization)
        response: http.client.HTTPResponse = self._opener.open(request, timeout=_TIMEOUT)
        return response

    # -- authentication --------------------------------------------------------------------------

    def _authenticate(self, challenges: Sequence[str]) -> str:
        """The Authorization header that answers the registry's challenge."""
        for challenge in challenges:
            scheme, _, rest = challenge.partition(" ")
            if scheme.lower() == "bearer":
                return f"Bearer {self._token(dict(_PARAMETER.findall(rest)))}"
        if any(challenge.lower().startswith("basic") for challenge in challenges):
            if not self._auth.get("username"):
                raise self._denied("no basic auth credentials")
            return self._basic()
        raise ProtocolError(f"{self._host} asks for an authentication that is not known: {challenges}")

    def _token(self, challenge: Mapping[str, str]) -> str:
        if token := self._auth.get("registrytoken"):
            return str(token)
        realm = challenge.get("realm", "")
        target = urllib.parse.urlsplit(realm)
        if target.scheme != "https" and not (target.scheme == "http" and self._insecure):
            raise ProtocolError(f"{self._host} names a token service that is not https: {realm!r}")
        query = {
            "service": challenge.get("service", ""),
            "scope": challenge.get("scope") or f"repository:{self._name.path}:pull",
        }
        if identity := self._auth.get("identitytoken"):
            form = {
                **query,
                "grant_type": "refresh_token",
                "refresh_token": str(identity),
                "client_id": "hawse",
            }
            response = self._send(realm, {}, "", urllib.parse.urlencode(form).encode())
        else:
            authorization = self._basic() if self._auth.get("username") else ""
            joint = "&" if target.query else "?"
            response = self._send(f"{realm}{joint}{urllib.parse.urlencode(query)}", {}, authorization)
        with response:
            answer = parse_json(response.read(MAX_JSON), f"the token of {target.hostname}")
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str):
            raise ProtocolError(f"{target.hostname} sent no token")
        return token

    def _basic(self) -> str:
        pair = f"{self._auth.get('username', '')}:{self._auth.get('password', '')}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"

    # -- errors ----------------------------------------------------------------------------------

    def _passes(self, error: Exception) -> bool:
        """Whether the same request may succeed in a moment."""
        if isinstance(error, urllib.error.HTTPError):
            return error.code in (408, 500, 502, 503, 504)
        return self._reached

    def _failed(self, error: Exception) -> HawseError:
        shown = self._name.familiar
        if isinstance(error, urllib.error.HTTPError):
            said = _said(error)
            if error.code in (401, 403):
                return self._denied(said or "requested access to the resource is denied")
            if error.code == 404:
                return NotFound(f"manifest for {shown} not found: {said or 'manifest unknown'}")
            if error.code == 429:
                return HostRefused(
                    f"pull {shown}: {self._host} refuses more for now: {said or 'too many requests'}",
                    hint="log in, wait, or send the image from the controller",
                )
            return HostRefused(f"pull {shown}: {self._host} answers {error.code} {said}".rstrip())
        reason = getattr(error, "reason", error)
        reason = getattr(reason, "strerror", None) or reason
        return HostRefused(
            f"pull {shown}: cannot reach the registry {self._host}: {reason}",
            hint="check the host's network, or send the image from the controller (hawse image import)",
        )

    def _denied(self, why: str) -> NotFound:
        return NotFound(f"pull access denied for {self._name.familiar_name}, {_DENIED}: {why}")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """To http and https only; what proves who we are stays with the host that it was meant for."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is None:
            return None
        if new.type not in ("http", "https"):
            raise urllib.error.URLError(f"redirected to {new.type}:")
        if (new.type, new.host) != (req.type, req.host):
            new.remove_header("Authorization")
        return new


def _pause(failures: int) -> float:
    return float(min(0.2 * 2**failures, 5))


def _said(error: urllib.error.HTTPError) -> str:
    """What the registry says of it: `manifest unknown`."""
    try:
        errors = json.loads(error.read(MAX_JSON))["errors"]
        return str(errors[0].get("message") or errors[0].get("code") or "")
    except (ValueError, LookupError, TypeError, AttributeError, OSError, http.client.HTTPException):
        return ""  # a proxy's page in HTML, or nothing


def _is_loopback(host: str) -> bool:
    name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _short(digest: str) -> str:
    return digest[7:19]
