"""What goes to registries: push, search, the check of a login, and what a name stands for there.

Credentials come with each request, are used for it and kept nowhere.
"""

from __future__ import annotations

from typing import Any

from hawse_agent.api.docker import progress
from hawse_agent.api.docker.filters import Filters
from hawse_agent.api.http import Request, Response
from hawse_agent.api.router import Router
from hawse_agent.distribution import credentials, manifest, reference
from hawse_agent.distribution.credentials import Credentials
from hawse_agent.distribution.documents import parse_json
from hawse_agent.distribution.search import DEFAULT_LIMIT, search
from hawse_agent.engine.engine import Engine
from hawse_agent.errors import InputError


def routes(router: Router, engine: Engine) -> None:
    api = Registries(engine)
    router.add("POST", "/auth", api.log_in)
    router.add("GET", "/images/search", api.search)
    router.add("POST", "/images/{name:path}/push", api.push)
    router.add("GET", "/distribution/{name:path}/json", api.distribution)


class Registries:
    def __init__(self, engine: Engine) -> None:
        self._images, self._client = engine.images, engine.registries

    def log_in(self, request: Request) -> Response:
        who = credentials.of_json(request.body.json(), "the request's body")
        token = self._client.log_in(credentials.registry_of(who.address), who)
        return Response(json={"Status": "Login Succeeded", "IdentityToken": token})

    def push(self, request: Request) -> Response:
        """One tag, or without `tag` all of the repository."""
        name, tag = request.params["name"], request.query.text("tag")
        who = credentials_of(request)
        wanted = reference.parse(f"{name}:{tag}" if tag else name)
        if wanted.digest or not reference.is_name_only(name):
            raise InputError(f"{name}: expected a repository; its tag is told by `tag`")
        push = self._images.push if tag else self._images.push_all
        return progress.told(request, lambda tell, cancel: push(wanted, tell, who, cancel=cancel))

    def search(self, request: Request) -> Response:
        filters = Filters(request.query.json("filters"), ("is-official", "is-automated", "stars"))
        limit = request.query.number("limit")
        found = search(
            self._client,
            request.query.text("term"),
            limit=int(limit) if limit else DEFAULT_LIMIT,
            credentials=credentials_of(request),
        )
        least = max((_stars(text) for text in filters.values("stars")), default=0)
        return Response(
            json=[
                {
                    "name": result.name,
                    "description": result.description,
                    "star_count": result.stars,
                    "is_official": result.official,
                    "is_automated": result.automated,
                }
                for result in found
                if result.stars >= least
                and filters.flag("is-official", result.official) == result.official
                and filters.flag("is-automated", result.automated) == result.automated
            ]
        )

    def distribution(self, request: Request) -> Response:
        """What the registry has under a name, without its layers."""
        name = reference.parse(request.params["name"])
        with self._client.repository(name, credentials_of(request)) as repository:
            top = repository.manifest(name.digest or name.tag)
            document = parse_json(top.data, f"the manifest of {name.familiar}")
            if manifest.is_index(document):
                entries = document["manifests"]
                platforms = [_platform(entry.get("platform")) for entry in entries if isinstance(entry, dict)]
            else:
                config = repository.configuration(manifest.parse(document, name.familiar).config)
                platforms = [_platform(parse_json(config, f"the configuration of {name.familiar}"))]
        return Response(
            json={
                "Descriptor": {
                    "mediaType": top.media_type or manifest.media_type(document),
                    "digest": top.digest,
                    "size": len(top.data),
                },
                "Platforms": [platform for platform in platforms if platform],
            }
        )


def credentials_of(request: Request) -> Credentials:
    """X-Registry-Auth."""
    return credentials.of_header(request.headers.get("x-registry-auth", ""))


def _stars(text: str) -> int:
    if not text.isdecimal():
        raise InputError(f"invalid filter 'stars={text}'")
    return int(text)


def _platform(data: Any) -> dict[str, str] | None:
    if not isinstance(data, dict):
        return None
    keys = ("architecture", "os", "os.version", "variant")
    return {key: str(data[key]) for key in keys if data.get(key)}
