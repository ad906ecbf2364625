"""An agent's API as functions: our own endpoints, and those of Docker's that our verbs use.

Errors come back as the class that the agent raised. A request has its own deadline for silence; streams of
events are expected to beat, and 15 s without a sign mean out of reach.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hawse.fleet.http import Body, HttpConnection, Response
from hawse.fleet.stream import Preamble, Stream
from hawse_agent.distribution.reference import canonical
from hawse_agent.errors import (
    Conflict,
    HawseError,
    InputError,
    NotFound,
    PlanChanged,
    ProtocolError,
    from_wire,
)

if TYPE_CHECKING:  # they take a third of the time that a command like `ps` needs
    from hawse_agent.plan.operations import Plan
    from hawse_agent.spec.host import HostSpec

SILENCE = 15.0
"""Seconds without an event after which a host counts as out of reach; the agent beats every 5."""
PATIENCE = 60.0
"""Seconds that an answer may take to begin."""
LONG = 3600.0
DOCKER = "/v1.44"

Json = dict[str, Any]
Query = Mapping[str, str | int | bool | list[str]]
"""A list stands for a key that is given several times."""


@dataclass(frozen=True, kw_only=True)
class PlanAnswer:
    """A plan, and the blobs that its images need and the host lacks."""

    plan: Plan
    missing_blobs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who asks; goes to the host's audit log."""

    run: str = ""
    user: str = ""
    key: str = ""

    def headers(self) -> dict[str, str]:
        fields = {"X-Hawse-Run": self.run, "X-Hawse-User": self.user, "X-Hawse-Key": self.key}
        return {name: value for name, value in fields.items() if value}


class AgentClient:
    """One control channel to one agent. `second` opens another, for bulk or to act beside a long answer."""

    def __init__(
        self,
        open_stream: Callable[[], Stream],
        *,
        name: str,
        identity: Identity | None = None,
        stream: Stream | None = None,
        preamble: Preamble | None = None,
    ) -> None:
        self.name = name
        self.preamble = preamble
        self._identity = identity or Identity()
        self._open_stream = open_stream
        self._http = HttpConnection(open_stream, name=name, stream=stream)

    def second(self) -> AgentClient:
        return AgentClient(self._open_stream, name=self.name, identity=self._identity, preamble=self.preamble)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> AgentClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- requests --------------------------------------------------------------------------------

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        data: Any = None,
        body: Body = b"",
        headers: Mapping[str, str] | None = None,
        timeout: float = PATIENCE,
    ) -> Iterator[Response]:
        """An answer to read in pieces; statuses from 400 up are raised. `data` is sent as JSON."""
        fields = {**self._identity.headers(), **(headers or {})}
        if data is not None:
            body = json.dumps(data, separators=(",", ":")).encode()
            fields["Content-Type"] = "application/json"
        target = _target(path, query)
        with self._http.request(method, target, headers=fields, body=body, timeout=timeout) as response:
            if response.status >= 400:
                raise self._error(response.status, response.read())
            yield response

    def request(self, method: str, path: str, **options: Any) -> bytes:
        with self.open(method, path, **options) as response:
            return response.read()

    def json(self, method: str, path: str, **options: Any) -> Any:
        """The answer as JSON; None when it is empty."""
        body = self.request(method, path, **options)
        if not body:
            return None
        try:
            return json.loads(body)
        except ValueError as error:
            raise ProtocolError(f"{self.name}: {path} did not answer in JSON: {body[:200]!r}") from error

    def stream_lines(
        self, method: str, path: str, *, silence: float | None = SILENCE, **options: Any
    ) -> Iterator[Json]:
        """JSON lines as they come; `Unreachable` when none comes for `silence` seconds, if it says any."""
        with self.open(method, path, **options) as response:
            response.timeout = silence
            rest = b""
            for chunk in response.chunks():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield self._line(line)
            if rest.strip():
                yield self._line(rest)

    def hijack(self, path: str, data: Any = None, *, query: Query | None = None) -> tuple[Stream, bytes]:
        """A raw stream (exec, attach) and what has arrived of it already. Takes this client's channel: use it
        on a `second`."""
        fields = {**self._identity.headers(), "Content-Type": "application/json"}
        body = json.dumps(data).encode() if data is not None else b""
        response, stream, first = self._http.upgrade(
            "POST", _target(path, query), headers=fields, body=body, timeout=PATIENCE
        )
        if stream is not None:
            return stream, first
        assert response is not None
        with response:
            raise self._error(response.status, response.read())

    def _line(self, line: bytes) -> Json:
        try:
            value = json.loads(line)
        except ValueError as error:
            raise ProtocolError(f"{self.name}: not a JSON line: {line[:200]!r}") from error
        if not isinstance(value, dict):
            raise ProtocolError(f"{self.name}: not a JSON object: {line[:200]!r}")
        return value

    def _error(self, status: int, body: bytes) -> HawseError:
        try:
            said = json.loads(body)
        except ValueError:
            said = {}
        kind: type[HawseError] = {400: InputError, 404: NotFound, 409: Conflict}.get(status, HawseError)
        if not body and kind is not HawseError:  # an answer to HEAD
            return kind(f"{self.name}: the agent answered {status}")
        if not isinstance(said, dict) or not said.get("message"):
            return ProtocolError(
                f"{self.name}: the agent answered {status}: {body[:200].decode(errors='replace')}"
            )
        if "kind" in said:
            return from_wire(said)
        return kind(str(said["message"]))

    # -- the host --------------------------------------------------------------------------------

    def version(self) -> Json:
        return _mapping(self.json("GET", "/hawse/v1/version"))

    def facts(self) -> Json:
        return _mapping(self.json("GET", "/hawse/v1/facts"))

    def report(self, *, sizes: bool = False) -> Json:
        """How the host is; `sizes` walks every volume for its size."""
        return _mapping(self.json("GET", "/hawse/v1/report", query={"sizes": sizes}))

    def journal(self, *, run: str = "", limit: int = 100) -> Any:
        query: dict[str, str | int] = {"limit": limit, **({"run": run} if run else {})}
        return self.json("GET", "/hawse/v1/journal", query=query)

    def stop_daemon(self) -> None:
        """The daemon leaves, its containers stay."""
        self.request("POST", "/hawse/v1/daemon/stop")
        self.close()

    def plan(self, spec: HostSpec) -> PlanAnswer:
        from hawse_agent.plan.operations import Operation, Plan
        from hawse_agent.spec import codec

        answer = _mapping(
            self.json("POST", "/hawse/v1/plan", data={"host_spec": codec.to_json(spec)}, timeout=LONG)
        )
        operations = codec.from_json(tuple[Operation, ...], answer.get("operations", []))
        plan = Plan(operations=operations, digest=str(answer["digest"]))
        return PlanAnswer(plan=plan, missing_blobs=tuple(answer.get("missing_blobs", ())))

    def apply(
        self, spec: HostSpec, digest: str, *, headers: Mapping[str, str] | None = None
    ) -> Iterator[Json]:
        """Events of the run as they happen; the last is `{"event": "end"}`. Beats are kept back. `headers`
        say who we are at registries that the host may have to pull from.

        Raises PlanChanged before the first of them, also when the agent had to wait before it could tell.
        """
        from hawse_agent.spec import codec

        ended = False
        body = {"host_spec": codec.to_json(spec), "digest": digest}
        for event in self.stream_lines("POST", "/hawse/v1/apply", data=body, headers=headers):
            if event.get("event") != "beat":
                ended = event.get("event") == "end"
                if ended and isinstance(error := from_wire(event.get("error") or {}), PlanChanged):
                    raise error
                yield event
        if not ended:
            raise ProtocolError(f"{self.name}: the run was cut off: its last event is missing")

    # -- images ----------------------------------------------------------------------------------

    def machine(self) -> str:
        """What the host's kernel calls its architecture: x86_64, aarch64."""
        return str(_mapping(self.json("GET", f"{DOCKER}/info"))["Architecture"])

    def missing_blobs(self, digests: Iterable[str]) -> tuple[str, ...]:
        answer = self.json("POST", "/hawse/v1/blobs/missing", data={"digests": list(digests)})
        return tuple(_mapping(answer)["missing"])

    def blob_offset(self, digest: str) -> int | None:
        """Bytes of a blob that the host has already; None when it has it whole. Waits for who sends it."""
        answer = _mapping(self.json("GET", f"/hawse/v1/blobs/{digest}/offset", timeout=LONG))
        return None if answer["whole"] else int(answer["offset"])

    def upload_blob(self, digest: str, pieces: Iterable[bytes], size: int, *, offset: int = 0) -> None:
        """`pieces` are what follows after `offset` bytes of the blob's `size`."""
        headers = {"Content-Length": str(size - offset), "Content-Type": "application/octet-stream"}
        query = {"offset": offset} if offset else None
        path = f"/hawse/v1/blobs/{digest}"
        self.request("PUT", path, query=query, body=pieces, headers=headers, timeout=300.0)

    @contextmanager
    def download_blob(self, digest: str, *, offset: int = 0) -> Iterator[Iterator[bytes]]:
        """What follows after `offset` bytes of a blob."""
        query = {"offset": offset} if offset else None
        with self.open("GET", f"/hawse/v1/blobs/{digest}", query=query) as response:
            yield response.chunks()

    def image_id(self, name: str) -> str | None:
        """What the host knows under this name."""
        try:
            return str(_mapping(self.json("GET", f"{image_path(name)}/json"))["Id"])
        except NotFound:
            return None

    def has_name(self, name: str) -> bool:
        """Whether the host has an image of this very name; an id is none."""
        try:
            image = _mapping(self.json("GET", f"{image_path(name)}/json"))
        except NotFound:
            return False
        return canonical(name) in map(canonical, image.get("RepoTags") or ())

    def image_layers(self, name: str) -> tuple[str, list[Json]]:
        """An image's id, and its layers: mediaType, digest, size, diff_id."""
        answer = _mapping(self.json("GET", f"/hawse/v1/images/{_quote(name)}/blobs"))
        return str(answer["id"]), list(answer["layers"])

    def commit_image(self, manifest: str, references: Iterable[str]) -> str:
        """Unpacks and tags an image whose blobs are all there; gives its id."""
        body = {"manifest": manifest, "references": list(references)}
        return str(_mapping(self.json("POST", "/hawse/v1/images/commit", data=body, timeout=600.0))["id"])

    def messages(self, method: str, path: str, **options: Any) -> Iterator[Json]:
        """Docker's messages of a long work, as they come; the one that tells of an error is raised."""
        for line in self.stream_lines(method, path, silence=LONG, timeout=LONG, **options):
            if "error" in line:
                raise _told(str(line["error"]), line.get("errorDetail") or {})
            yield line

    def pull_image(
        self,
        repository: str,
        tag: str = "",
        *,
        platform: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Json]:
        """What the host's agent says while it fetches an image (without a tag: all) from its registry.
        `tag` may be a digest; `headers` say who asks."""
        query = {"fromImage": repository, "tag": tag, **({"platform": platform} if platform else {})}
        return self.messages("POST", f"{DOCKER}/images/create", query=query, headers=headers)

    def images(self) -> list[Json]:
        return list(self.json("GET", f"{DOCKER}/images/json"))

    # -- volumes ---------------------------------------------------------------------------------

    def volumes(self, *, sizes: bool = False) -> list[Json]:
        return list(self.json("GET", "/hawse/v1/volumes", query={"sizes": sizes}))

    @contextmanager
    def backup_volume(
        self, name: str, *, compression: Literal["zstd", "gzip", "none"] = "zstd"
    ) -> Iterator[tuple[str, Iterator[bytes]]]:
        """The backup's id and its tarball; ask for the manifest once the tarball is read."""
        path = f"/hawse/v1/volumes/{_quote(name)}/backup"
        query = {"compression": compression}
        with self.open("POST", path, query=query, timeout=LONG) as response:
            yield response.headers.get("x-hawse-backup", ""), response.chunks()

    def backup_manifest(self, name: str, backup: str) -> Json:
        path = f"/hawse/v1/volumes/{_quote(name)}/backup/{_quote(backup)}/manifest"
        return _mapping(self.json("GET", path))

    def restore_volume(self, name: str, manifest: Json, pieces: Iterable[bytes]) -> Json:
        """Files, bytes, and the containers that were stopped for it and started again."""
        path = f"/hawse/v1/volumes/{_quote(name)}/restore"
        token = str(_mapping(self.json("POST", path, data=manifest))["token"])
        return _mapping(self.json("PUT", f"{path}/{_quote(token)}", body=pieces, timeout=LONG))

    # -- containers, by Docker's API -------------------------------------------------------------

    def containers(self, *, all: bool = False, filters: Mapping[str, list[str]] | None = None) -> list[Json]:
        query: dict[str, str | bool] = {"all": all}
        if filters:
            query["filters"] = json.dumps(filters)
        return list(self.json("GET", f"{DOCKER}/containers/json", query=query))

    def container(self, name: str) -> Json:
        return _mapping(self.json("GET", f"{container_path(name)}/json"))

    def logs(
        self,
        name: str,
        *,
        follow: bool = False,
        tail: str = "all",
        since: str = "",
        until: str = "",
        timestamps: bool = False,
        details: bool = False,
    ) -> Iterator[tuple[int, bytes]]:
        """Output of a container as it comes: (1, …) is stdout, (2, …) stderr. A terminal's is all stdout."""
        tty = bool(self.container(name)["Config"].get("Tty"))
        query: dict[str, str | bool] = {"stdout": True, "stderr": True, "follow": follow, "tail": tail}
        query |= {"timestamps": timestamps, "details": details}
        query |= {key: value for key, value in (("since", since), ("until", until)) if value}
        path = f"{container_path(name)}/logs"
        with self.open("GET", path, query=query) as response:
            if follow:
                response.timeout = None
            yield from ((1, piece) for piece in response.chunks()) if tty else demultiplex(response.chunks())

    def create_container(self, body: Json, *, name: str = "", platform: str = "") -> Json:
        """`Id` and `Warnings`. Raises NotFound for the image."""
        query = {key: value for key, value in (("name", name), ("platform", platform)) if value}
        return _mapping(self.json("POST", f"{DOCKER}/containers/create", query=query, data=body))

    def start_container(self, name: str) -> None:
        self.request("POST", f"{container_path(name)}/start", timeout=LONG)

    def kill_container(self, name: str, signal: str) -> None:
        self.request("POST", f"{container_path(name)}/kill", query={"signal": signal})

    def resize_container(self, name: str, *, height: int, width: int) -> None:
        query = {"h": height, "w": width}
        self.request("POST", f"{container_path(name)}/resize", query=query)

    def attach_container(
        self, name: str, *, stdin: bool, stdout: bool = True, stderr: bool = True, detach_keys: str = ""
    ) -> tuple[Stream, bytes]:
        """Its streams as `exec_start` gives them, also before it runs. On a `second`."""
        query: dict[str, str | bool] = {"stream": True, "stdin": stdin, "stdout": stdout, "stderr": stderr}
        if detach_keys:
            query["detachKeys"] = detach_keys
        return self.hijack(f"{container_path(name)}/attach", query=query)

    @contextmanager
    def waiting(
        self, name: str, condition: Literal["not-running", "next-exit", "removed"]
    ) -> Iterator[Callable[[], int]]:
        """From now on its end is noticed; what is given waits for it, and gives the exit code."""
        path = f"{container_path(name)}/wait"
        with self.second() as channel, channel.open("POST", path, query={"condition": condition}) as response:
            response.timeout = None

            def ended() -> int:
                said = json.loads(response.read())
                if error := (said.get("Error") or {}).get("Message"):
                    raise HawseError(str(error))
                return int(said["StatusCode"])

            yield ended

    def exec_create(self, name: str, body: Json) -> str:
        """Its id."""
        path = f"{container_path(name)}/exec"
        return str(_mapping(self.json("POST", path, data=body))["Id"])

    def exec_start(self, exec_id: str, *, tty: bool = False) -> tuple[Stream, bytes]:
        """Starts it: a raw stream with a terminal, Docker's frames (`demultiplex`) without. On a `second`."""
        return self.hijack(f"{DOCKER}/exec/{_quote(exec_id)}/start", {"Detach": False, "Tty": tty})

    def exec_detached(self, exec_id: str) -> None:
        """Starts it, and leaves it alone."""
        self.request("POST", f"{DOCKER}/exec/{_quote(exec_id)}/start", data={"Detach": True})

    def exec_resize(self, exec_id: str, *, height: int, width: int) -> None:
        self.request("POST", f"{DOCKER}/exec/{_quote(exec_id)}/resize", query={"h": height, "w": width})

    def exec_inspect(self, exec_id: str) -> Json:
        return _mapping(self.json("GET", f"{DOCKER}/exec/{_quote(exec_id)}/json"))


class StepFailed(HawseError):
    """A command of a build failed; `code` is its exit code."""

    def __init__(self, message: str, *, code: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


def _told(message: str, detail: Json) -> HawseError:
    """The error at the end of a stream of messages."""
    if detail.get("kind") == "RunFailed":
        return StepFailed(message, code=int(detail.get("code") or 1), hint=str(detail.get("hint") or ""))
    return from_wire({**detail, "message": message}) if "kind" in detail else HawseError(message)


def container_path(name: str) -> str:
    return f"{DOCKER}/containers/{_quote(name)}"


def image_path(name: str) -> str:
    return f"{DOCKER}/images/{_quote(name)}"


def demultiplex(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Docker's frames: stream (1 stdout, 2 stderr), three zeros, length, data."""
    rest = b""
    for chunk in chunks:
        rest += chunk
        while len(rest) >= 8:
            size = int.from_bytes(rest[4:8], "big")
            if len(rest) < 8 + size:
                break
            yield rest[0], rest[8 : 8 + size]
            rest = rest[8 + size :]
    if rest:
        raise ProtocolError("a stream of output was cut off")


def _target(path: str, query: Query | None) -> str:
    if not query:
        return path
    pairs: list[tuple[str, str]] = []
    for key, value in query.items():
        for one in value if isinstance(value, list) else [value]:
            pairs.append((key, str(one).lower() if isinstance(one, bool) else str(one)))
    return f"{path}?{urllib.parse.urlencode(pairs, errors='surrogateescape')}"


def _quote(part: str) -> str:
    return urllib.parse.quote(part, safe="")


def _mapping(value: Any) -> Json:
    if not isinstance(value, dict):
        raise ProtocolError(f"the agent answered {str(value)[:80]!r} where an object was expected")
    return value
