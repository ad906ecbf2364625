"""`/build`: Docker's classic builder, and its cache.

The body is the context, a tar; the answer is JSON lines while the build goes on. What is wrong with the
request or the Dockerfile is an HTTP error, since nothing has been told by then. A client that hangs up ends
its build.
"""

from __future__ import annotations

import json
import queue
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from hawse_agent.api.docker.fields import Fields
from hawse_agent.api.docker.filters import Filters
from hawse_agent.api.docker.lowering import limits
from hawse_agent.api.docker.views import times
from hawse_agent.api.http import EMPTY, JSON, Query, Request, Response, begun
from hawse_agent.api.router import Router
from hawse_agent.build.cache import Usage
from hawse_agent.build.options import BuildOptions
from hawse_agent.distribution.credentials import keyring_of_header
from hawse_agent.engine.building.stopping import Stopping
from hawse_agent.engine.engine import Engine
from hawse_agent.errors import HawseError, InputError, InternalError, NotSupported
from hawse_agent.images.compression import Readable

_BEAT = 0.5
"""Seconds between two looks at whether a client of a build that says nothing is still there."""
_WAITING = 256
"""Messages that a client may be behind."""
_Message = dict[str, Any] | HawseError | None
_BUILDKIT = "set DOCKER_BUILDKIT=0, and build with docker itself, not with buildx"
_LIMITS = {
    "memory": "Memory",
    "memswap": "MemorySwap",
    "cpushares": "CpuShares",
    "cpuperiod": "CpuPeriod",
    "cpuquota": "CpuQuota",
    "cpusetcpus": "CpusetCpus",
    "cpusetmems": "CpusetMems",
}
_TAKEN = frozenset(
    (
        *(
            "t",
            "dockerfile",
            "q",
            "nocache",
            "cachefrom",
            "pull",
            "target",
            "platform",
            "buildargs",
            "labels",
            "networkmode",
        ),
        *("extrahosts", "shmsize", "ulimits", "buildid", "version", *_LIMITS),
        *("rm", "forcerm"),  # a step's container never stays, whatever is asked for
    )
)
_NOTHING = ("", "0", "false", "False", "null", "[]", "{}", "default")
"""What clients send for an option that nobody gave."""


def routes(router: Router, engine: Engine) -> None:
    def build(request: Request) -> Response:
        return answer(engine, request, request.body.stream(), {}, own=False)

    def cancel(request: Request) -> Response:
        engine.builds.cancel(request.query.text("id"))
        return EMPTY

    def prune(request: Request) -> Response:
        filters = Filters(
            request.query.json("filters"), ("until", "id", "type", "description", "inuse", "shared")
        )
        for name in ("reserved-space", "max-used-space", "min-free-space"):
            if request.query.text(name) not in _NOTHING:
                raise NotSupported(f"{name} is not supported by hawse-agent", hint="keep-storage is")
        pruned = engine.builds.prune(
            every=request.query.flag("all"),
            keep_bytes=int(request.query.number("keep-storage") or 0),
            wanted=lambda usage: _wanted(usage, filters),
        )
        return Response(
            json={"CachesDeleted": list(pruned.removed) or None, "SpaceReclaimed": pruned.reclaimed}
        )

    router.add("POST", "/build", build)
    router.add("POST", "/build/cancel", cancel)
    router.add("POST", "/build/prune", prune)


def answer(
    engine: Engine, request: Request, archive: Readable, secrets: Mapping[str, bytes], *, own: bool
) -> Response:
    """`own`: for our client, who wants to know of steps, too."""
    options = build_options(request.query, request.headers.get("x-registry-config", ""), secrets)
    lines = _lines(engine, request, options, archive, own=own)
    return Response(chunks=begun(lines), content_type=JSON)


def build_options(query: Query, registry_config: str, secrets: Mapping[str, bytes]) -> BuildOptions:
    """Raises NotSupported for what is not, by its name."""
    if query.text("version") == "2" or query.text("session"):
        raise NotSupported("BuildKit is not supported by hawse-agent", hint=_BUILDKIT)
    if remote := query.text("remote"):
        raise NotSupported(
            f"remote contexts are not supported by hawse-agent: {remote}", hint="send it as a tar"
        )
    for name in query.names():
        if name not in _TAKEN and query.text(name) not in _NOTHING:
            raise NotSupported(f"{name} of a build is not supported by hawse-agent")
    asked: dict[str, int | str] = {
        key: query.text(name) if key.startswith("Cpuset") else int(query.number(name) or 0)
        for name, key in _LIMITS.items()
    }
    given = _mapping(query, "buildargs")
    return BuildOptions(
        tags=tuple(tag for tag in query.all("t") if tag),
        dockerfile=query.path("dockerfile"),
        arguments={name: value for name, value in given.items() if value is not None},
        labels={name: value or "" for name, value in _mapping(query, "labels").items()},
        target=query.text("target"),
        no_cache=query.flag("nocache"),
        cache_from=_texts(query, "cachefrom"),
        pull=query.flag("pull"),
        platform=query.text("platform"),
        network=query.text("networkmode") or "default",
        extra_hosts=tuple(query.all("extrahosts")),
        resources=limits.resources(Fields(asked, "")),
        shm_size=int(query.number("shmsize") or 0) or BuildOptions.shm_size,
        ulimits=limits.ulimits(query.json("ulimits") or []),
        keyring=keyring_of_header(registry_config),
        secrets=secrets,
    )


def usage(one: Usage) -> dict[str, Any]:
    """A row of `/system/df`."""
    return {
        "ID": one.id[:25],
        "Parents": None,
        "Type": one.kind,
        "Description": one.description,
        "InUse": one.in_use,
        "Shared": one.shared,
        "Size": one.size,
        "CreatedAt": times.stamp(one.made),
        "LastUsedAt": times.stamp(one.used) if one.uses else None,
        "UsageCount": one.uses,
    }


def _mapping(query: Query, name: str) -> dict[str, str | None]:
    value = query.json(name) or {}
    if not isinstance(value, dict) or not all(isinstance(one, str | None) for one in value.values()):
        raise InputError(f"{name}: expected a JSON object of texts")
    return value


def _texts(query: Query, name: str) -> tuple[str, ...]:
    value = query.json(name) or []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InputError(f"{name}: expected a JSON list of texts")
    return tuple(value)


def _wanted(one: Usage, filters: Filters) -> bool:
    return (
        filters.prunes({}, one.used)
        and ("id" not in filters or any(one.id.startswith(start) for start in filters.values("id")))
        and filters.one("type", one.kind)
        and (
            "description" not in filters
            or any(text in one.description for text in filters.values("description"))
        )
        and ("inuse" not in filters or filters.flag("inuse", False) == one.in_use)
        and ("shared" not in filters or filters.flag("shared", False) == one.shared)
    )


def _lines(
    engine: Engine, request: Request, options: BuildOptions, archive: Readable, *, own: bool
) -> Iterator[bytes]:
    messages: queue.Queue[_Message] = queue.Queue(_WAITING)
    with engine.builds.cancellable(request.query.text("buildid")) as stopping:
        teller = _Teller(messages, stopping, quiet=request.query.flag("q"), own=own)

        def run() -> None:
            try:
                teller.done(engine.builds.build(options, archive, teller.tell, stopping))
            except HawseError as error:
                teller.failed(error)
            except BaseException as error:
                teller.failed(InternalError(f"{type(error).__name__}: {error}"))
                raise  # the thread's own report of it goes to the daemon's log
            finally:
                teller.post(None)

        thread = threading.Thread(target=run, name="build", daemon=True)
        thread.start()
        told = False
        try:
            while (message := _next(messages, request, stopping)) is not None:
                if isinstance(message, HawseError):
                    if not told:
                        raise message
                    message = _failure(message)
                told = True
                yield json.dumps(message).encode() + b"\n"
        finally:
            stopping.stop()
            thread.join()


class _Teller:
    """What a build says, on its way to a client that may read slowly: then the build waits."""

    def __init__(
        self, messages: queue.Queue[_Message], stopping: Stopping, *, quiet: bool, own: bool
    ) -> None:
        self._messages, self._stopping = messages, stopping
        self._quiet, self._own = quiet, own
        self._unsaid: deque[_Message] = deque(maxlen=_WAITING)
        """Of a quiet build: the last of it is said after all when it fails."""

    def tell(self, message: dict[str, Any]) -> None:
        """Raises BuildStopped."""
        self._stopping.check()
        if "step" in message and not self._own:
            return
        if self._quiet and "aux" not in message and "step" not in message:
            self._unsaid.append(message)
        else:
            self.post(message)

    def done(self, image_id: str) -> None:
        if self._quiet:
            self.post({"stream": f"{image_id}\n"})

    def failed(self, error: HawseError) -> None:
        for message in (*self._unsaid, error):
            self.post(message)

    def post(self, message: _Message) -> None:
        """Lost when nobody takes it any more."""
        while True:
            try:
                self._messages.put(message, timeout=_BEAT)
                return
            except queue.Full:
                if self._stopping.stopped:
                    return


def _next(messages: queue.Queue[_Message], request: Request, stopping: Stopping) -> _Message:
    while True:
        try:
            return messages.get(timeout=_BEAT)
        except queue.Empty:
            if request.gone():
                stopping.stop()


def _failure(error: HawseError) -> dict[str, Any]:
    code = error.fields().get("code", 1)
    return {"errorDetail": {"code": code, **error.to_wire()}, "error": error.message}
