"""`build:` of Compose files: what is asked of the builder, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hawse import stack
from hawse.runner.builder import work_of
from hawse.stack import Build
from hawse_agent.errors import InputError, NotSupported
from hawse_agent.spec.host import StackSpec


def load(directory: Path, text: str) -> tuple[StackSpec, list[Build]]:
    builds: list[Build] = []
    path = directory / "shop.yaml"
    path.write_text(text)
    environment = {"FROM_HERE": "here", "TOKEN": "s3cret"}
    return stack.load(path, variables={}, environment=environment, builds=builds.append), builds


def test_a_service_is_built_of_its_context(tmp_path: Path) -> None:
    spec, [build] = load(tmp_path, "services: {web: {build: app}}\n")
    assert build == Build(reference="shop-web", context=str(tmp_path / "app"))
    assert [container.image for container in spec.containers] == ["shop-web"]
    assert [image.reference for image in spec.images] == ["shop-web"]


def test_everything_that_compose_says_of_a_build(tmp_path: Path) -> None:
    _, [build] = load(
        tmp_path,
        """\
services:
  web:
    image: web:2
    build:
      context: .
      dockerfile: sub/D
      args: [A=1, FROM_HERE, NOWHERE]
      target: last
      labels: {l: v}
      network: none
      secrets: [token, {source: token, target: other}]
      tags: [web:extra]
      no_cache: true
      pull: true
      extra_hosts: {db: 10.0.0.1}
      shm_size: 1m
      ulimits: {nofile: {soft: 1, hard: 2}}
secrets: {token: {environment: TOKEN}}
""",
    )
    assert (build.reference, build.dockerfile) == ("web:2", str(tmp_path / "sub/D"))
    assert build.secrets == {"token": b"s3cret", "other": b"s3cret"} and "s3cret" not in repr(build)
    query = build.query("D")
    assert query.pop("t") == ["web:2", "web:extra"] and query.pop("extrahosts") == ["db:10.0.0.1"]
    assert json.loads(query.pop("buildargs")) == {"A": "1", "FROM_HERE": "here", "NOWHERE": None}
    assert json.loads(query.pop("labels")) == {"l": "v"}
    assert json.loads(query.pop("ulimits")) == [{"Name": "nofile", "Soft": 1, "Hard": 2}]
    assert query == {
        "dockerfile": "D",
        "target": "last",
        "networkmode": "none",
        "nocache": True,
        "pull": True,
        "shmsize": 1 << 20,
    }


def test_a_dockerfile_may_stand_in_the_stack(tmp_path: Path) -> None:
    _, [build] = load(tmp_path, 'services: {web: {build: {dockerfile_inline: "FROM scratch"}}}\n')
    assert build.text == "FROM scratch"
    (tmp_path / "file").write_text("x")
    tar = b"".join(work_of(build).pieces())
    assert b"FROM scratch" in tar and b"shop.yaml" in tar


def test_services_may_share_an_image_that_is_built_in_one_way(tmp_path: Path) -> None:
    text = "services: {a: {image: x, build: {}}, b: {image: x, build: {%s}}, c: {image: x}}\n"
    assert len(load(tmp_path, text % "")[1]) == 1
    with pytest.raises(InputError, match=r"services\.b\.build: x is built in two ways"):
        load(tmp_path, text % "target: t")


@pytest.mark.parametrize(
    ("build", "kind", "said"),
    [
        ("https://example.org/x.git", NotSupported, "a context from elsewhere"),
        ("{dockerfile: D, dockerfile_inline: x}", InputError, "exclude each other"),
        ("{secrets: [nowhere]}", InputError, "there is no secret 'nowhere'"),
        ("{secrets: [{source: a, mode: 400}]}", NotSupported, "'mode' is not supported"),
    ],
)
def test_what_is_refused(tmp_path: Path, build: str, kind: type[InputError], said: str) -> None:
    with pytest.raises(kind, match=said) as caught:
        load(tmp_path, f"services:\n  web:\n    build: {build}\n")
    assert "shop.yaml:3" in caught.value.message


def test_a_context_that_is_not_there_is_named(tmp_path: Path) -> None:
    _, [build] = load(tmp_path, "services: {web: {build: nowhere}}\n")
    with pytest.raises(InputError, match="nowhere is no directory"):
        work_of(build)
