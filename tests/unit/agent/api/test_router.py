"""Which handler a request goes to, and what is said when there is none."""

from __future__ import annotations

import pytest

from hawse_agent.api.http import Handler, Request, Response
from hawse_agent.api.router import MethodNotAllowed, Router, split_version
from hawse_agent.errors import InputError, NotFound


def router(*routes: tuple[str, str]) -> Router:
    made = Router()
    for method, pattern in routes:
        made.add(method, pattern, _named(f"{method} {pattern}"))
    return made


def _named(name: str) -> Handler:
    def handler(request: Request) -> Response:
        return Response(data=name.encode())

    return handler


def found(router: Router, method: str, path: str) -> tuple[str, dict[str, str]]:
    match = router.find(method, path)
    answer = match.handler(Request(method=method, path=path))
    assert isinstance(answer, Response)
    return answer.data.decode(), dict(match.params)


def test_a_segment_and_a_path() -> None:
    routes = router(
        ("GET", "/images/json"),
        ("GET", "/images/{name:path}/json"),
        ("DELETE", "/images/{name:path}"),
        ("GET", "/containers/{id}/json"),
    )
    assert found(routes, "GET", "/images/json") == ("GET /images/json", {})
    assert found(routes, "GET", "/images/reg:5000/a/b:1/json") == (
        "GET /images/{name:path}/json",
        {"name": "reg:5000/a/b:1"},
    )
    assert found(routes, "DELETE", "/images/a%2Fb") == ("DELETE /images/{name:path}", {"name": "a/b"})
    assert found(routes, "GET", "/containers/w%20b/json")[1] == {"id": "w b"}


def test_the_first_that_was_added_wins() -> None:
    routes = router(("POST", "/containers/create"), ("POST", "/containers/{id}"))
    assert found(routes, "POST", "/containers/create")[0] == "POST /containers/create"


def test_head_is_a_get_without_a_body() -> None:
    assert found(router(("GET", "/_ping")), "HEAD", "/_ping")[0] == "GET /_ping"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/nothing", "page not found: /nothing"),
        ("/containers/a/b/json", "page not found: /containers/a/b/json"),
        ("/swarm", "page not found: hawse-agent does not support swarm mode (/swarm)"),
        (
            "/services/create",
            "page not found: hawse-agent does not support swarm services (/services/create)",
        ),
    ],
)
def test_not_found(path: str, text: str) -> None:
    with pytest.raises(NotFound) as caught:
        router(("GET", "/containers/{id}/json")).find("GET", path)
    assert caught.value.message == text


def test_another_method() -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        router(("GET", "/info"), ("POST", "/info")).find("PUT", "/info")
    assert caught.value.status == 405
    assert caught.value.message == "PUT is not possible for /info, only GET, POST"


@pytest.mark.parametrize(
    ("path", "version", "rest"),
    [
        ("/v1.41/info", (1, 41), "/info"),
        ("/v1.47/images/v1.0/json", (1, 47), "/images/v1.0/json"),
        ("/info", None, "/info"),
        ("/hawse/v1/facts", None, "/hawse/v1/facts"),
    ],
)
def test_versions(path: str, version: tuple[int, int] | None, rest: str) -> None:
    assert split_version(path) == (version, rest)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "/v1.24/info",
            "client version 1.24 is too old. Minimum supported API version is 1.41, "
            "please upgrade your client to a newer version",
        ),
        ("/v1.99/info", "client version 1.99 is too new. Maximum supported API version is 1.47"),
    ],
)
def test_versions_that_we_do_not_speak(path: str, text: str) -> None:
    with pytest.raises(InputError) as caught:
        split_version(path)
    assert caught.value.message == text
