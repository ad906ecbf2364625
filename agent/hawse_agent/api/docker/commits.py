"""`/commit`: an image of a container."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hawse_agent.api.http import Request, Response
from hawse_agent.api.router import Router
from hawse_agent.engine.commits import CommitWish
from hawse_agent.engine.engine import Engine
from hawse_agent.errors import InputError

_OF_IMAGES = frozenset(
    {
        *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels"),
        *("StopSignal", "StopTimeout", "Healthcheck", "Shell", "OnBuild", "ArgsEscaped"),
    }
)


def routes(router: Router, engine: Engine) -> None:
    def commit(request: Request) -> Response:
        query = request.query
        if not query.text("container"):
            raise InputError("container: expected a container's name or id")
        repo, tag = query.text("repo"), query.text("tag")
        if tag and not repo:
            raise InputError(f"tag: {tag!r} needs a name of an image (repo)")
        image = engine.commits.commit(
            CommitWish(
                container=query.text("container"),
                name=f"{repo}:{tag}" if tag else repo,
                author=query.text("author"),
                comment=query.text("comment"),
                pause=query.flag("pause", True),
                changes=[line for text in query.all("changes") for line in _instructions(text)],
                config=_config(request.body.json()),
            )
        )
        return Response(status=201, json={"Id": image.id})

    router.add("POST", "/commit", commit)


def _instructions(text: str) -> list[str]:
    """Clients send one each, or all of them as the lines of one."""
    return [line for line in text.splitlines() if line.strip()]


def _config(data: Any) -> Mapping[str, Any]:
    """What an image keeps of a container's configuration."""
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InputError("the configuration of the image: expected an object")
    return {key: value for key, value in data.items() if key in _OF_IMAGES}
