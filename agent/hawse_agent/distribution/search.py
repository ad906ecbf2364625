"""Search, as Docker Hub has it: `/v1/search`. Few other registries do; those that do not are named in the
error."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hawse_agent.distribution import reference
from hawse_agent.distribution.credentials import NOBODY, Credentials
from hawse_agent.distribution.documents import MAX_JSON, parse_json
from hawse_agent.distribution.endpoint import Refused, Transient, reason
from hawse_agent.distribution.registry import Client
from hawse_agent.errors import HostRefused, InputError, NotFound, ProtocolError, Unauthorized

HUB_INDEX = "index.docker.io"
DEFAULT_LIMIT = 25
MOST = 100


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    name: str
    description: str = ""
    stars: int = 0
    official: bool = False
    automated: bool = False


def search(
    client: Client, term: str, *, limit: int = DEFAULT_LIMIT, credentials: Credentials = NOBODY
) -> list[SearchResult]:
    """Best first, as the index has them. `localhost:5000/x` asks localhost:5000 for x.

    Raises InputError for a term or a limit that cannot be, NotFound for a registry without search,
    Unauthorized, HostRefused.
    """
    if not 1 <= limit <= MOST:
        raise InputError(f"Limit {limit} is outside the range of [1, {MOST}]")
    registry, wanted = _split(term)
    address = HUB_INDEX if registry == reference.DEFAULT_REGISTRY else registry
    query = urllib.parse.urlencode({"q": wanted, "n": limit})
    with client.endpoint(address, credentials) as endpoint:
        try:
            with endpoint.request("GET", f"/v1/search?{query}") as response:
                document = parse_json(response.read(MAX_JSON), f"the answer of {address}")
        except Refused as error:
            if error.status in (401, 403):
                raise Unauthorized(f"search {registry}: {error.said or 'unauthorized'}") from error
            if error.status in (404, 405):
                raise NotFound(
                    f"the registry {registry} has no search (it answers {error.status})"
                ) from error
            raise HostRefused(f"search {registry}: it answers {error}") from error
        except Transient as error:
            raise HostRefused(f"search: cannot reach {address}: {reason(error)}") from error
    found = document.get("results")
    if not isinstance(found, list):
        raise ProtocolError(f"{address} sent no list of results")
    return [_result(entry) for entry in found if isinstance(entry, Mapping)]


def _split(term: str) -> tuple[str, str]:
    """Registry, and what to look for there."""
    if not term or "://" in term:
        raise InputError(f"invalid search term: {term!r}")
    head, slash, rest = term.partition("/")
    if not slash or not reference.is_registry(head):
        return reference.DEFAULT_REGISTRY, term.removeprefix("library/")
    if head in reference.HUB_NAMES:
        return reference.DEFAULT_REGISTRY, rest.removeprefix("library/")
    return head, rest


def _result(entry: Mapping[str, Any]) -> SearchResult:
    stars = entry.get("star_count")
    return SearchResult(
        name=str(entry.get("name") or ""),
        description=str(entry.get("description") or ""),
        stars=stars if isinstance(stars, int) else 0,
        official=entry.get("is_official") is True,
        automated=entry.get("is_automated") is True,
    )
