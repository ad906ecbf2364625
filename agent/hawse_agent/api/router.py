"""Which handler a method and path belong to."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass

from hawse_agent.api.http import Handler
from hawse_agent.errors import HawseError, InputError, NotFound

OLDEST, NEWEST = (1, 41), (1, 47)

_UNSUPPORTED = {
    "swarm": "swarm mode",
    "services": "swarm services",
    "tasks": "swarm tasks",
    "nodes": "swarm nodes",
    "secrets": "swarm secrets",
    "configs": "swarm configs",
    "plugins": "plugins",
    "session": "BuildKit (set DOCKER_BUILDKIT=0)",
    "grpc": "BuildKit (set DOCKER_BUILDKIT=0)",
    "distribution": "registry look-ups",
}


class MethodNotAllowed(HawseError):
    status = 405


@dataclass(frozen=True, kw_only=True)
class Route:
    method: str
    pattern: str
    regex: re.Pattern[str]
    handler: Handler


@dataclass(frozen=True, kw_only=True)
class Found:
    handler: Handler
    params: Mapping[str, str]


class Router:
    """Patterns are paths with `{name}` for a segment and `{name:path}` for any number of them."""

    def __init__(self) -> None:
        self.routes: list[Route] = []

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        regex = re.sub(r"\\{(\w+)(:path)?\\}", _group, re.escape(pattern))
        route = Route(method=method, pattern=pattern, regex=re.compile(regex + r"\Z"), handler=handler)
        self.routes.append(route)

    def find(self, method: str, path: str) -> Found:
        """Raises NotFound, or MethodNotAllowed where only the method is another one."""
        path = re.sub("//+", "/", path)  # of clients that put a name with its slash into the path
        others = set()
        for route in self.routes:
            match = route.regex.match(path)
            if match is None:
                continue
            if route.method == method or (method == "HEAD" and route.method == "GET"):
                params = {key: urllib.parse.unquote(value) for key, value in match.groupdict().items()}
                return Found(handler=route.handler, params=params)
            others.add(route.method)
        if others:
            raise MethodNotAllowed(f"{method} is not possible for {path}, only {', '.join(sorted(others))}")
        noun = path.split("/")[1] if "/" in path else ""
        if noun in _UNSUPPORTED:
            raise NotFound(f"page not found: hawse-agent does not support {_UNSUPPORTED[noun]} ({path})")
        raise NotFound(f"page not found: {path}")


def _group(match: re.Match[str]) -> str:
    return f"(?P<{match[1]}>{'.+' if match[2] else '[^/]+'})"


def split_version(path: str) -> tuple[tuple[int, int] | None, str]:
    """`/v1.43/info` as `((1, 43), "/info")`; raises InputError for a version that we do not speak."""
    match = re.match(r"/v(\d+)\.(\d+)(/.*)", path)
    if match is None:
        return None, path
    version = (int(match[1]), int(match[2]))
    asked = text(version)
    if version < OLDEST:
        raise InputError(
            f"client version {asked} is too old. Minimum supported API version is {text(OLDEST)}, "
            "please upgrade your client to a newer version"
        )
    if version > NEWEST:
        raise InputError(
            f"client version {asked} is too new. Maximum supported API version is {text(NEWEST)}"
        )
    return version, match[3]


def text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
