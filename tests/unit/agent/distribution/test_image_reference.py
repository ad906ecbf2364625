"""Names of images, and the platform that is chosen from an index."""

from __future__ import annotations

from typing import Any

import pytest

from hawse_agent.distribution import manifest, reference
from hawse_agent.distribution.manifest import Platform
from hawse_agent.errors import InputError, NotFound

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27", "nginx:1.27"),
        ("user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("docker.io/library/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/a/b:x", "localhost:5000/a/b:x", "localhost:5000/a/b:x"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        ("ghcr.io/o/a.b_c--d:V1.0", "ghcr.io/o/a.b_c--d:V1.0", "ghcr.io/o/a.b_c--d:V1.0"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}", f"nginx@{DIGEST}"),
        (f"nginx:1@{DIGEST}", f"docker.io/library/nginx@{DIGEST}", f"nginx@{DIGEST}"),
        ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
    ],
)
def test_names(text: str, canonical: str, familiar: str) -> None:
    assert (reference.canonical(text), reference.familiar(text)) == (canonical, familiar)
    assert reference.canonical(familiar) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "UPPER",
        "a//b",
        "a:",
        "a:b:c",
        "-a",
        "a@sha256:12",
        "a@md5:00",
        "a b",
        "../x",
        "a:.t",
        "f" * 64,
        "app:la/test",
    ],
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(InputError):
        reference.parse(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("UPPER", "invalid reference format: repository name (library/UPPER) must be lowercase"),
        ("localhost:5000/Team/app", "invalid reference format: repository name (Team/app) must be lowercase"),
        ("f" * 64, f"invalid repository name ({'f' * 64}), cannot specify 64-byte hexadecimal strings"),
    ],
)
def test_in_dockers_words(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        reference.parse(text)
    assert caught.value.message == words


def index(*platforms: str) -> dict[str, Any]:
    entries = []
    for number, text in enumerate(platforms):
        os, architecture, *variant = text.split("/")
        entries.append(
            {
                "digest": f"sha256:{number:064x}",
                "size": 1,
                "platform": {"os": os, "architecture": architecture, "variant": "".join(variant)},
            }
        )
    return {"manifests": entries}


@pytest.mark.parametrize(
    ("offered", "wanted", "chosen"),
    [
        (("linux/arm64/v8", "linux/amd64"), "linux/amd64", 1),
        (("unknown/unknown", "linux/amd64"), "amd64", 1),
        (("windows/amd64", "linux/amd64"), "linux/amd64", 1),
        (("linux/amd64/v3", "linux/amd64"), "linux/amd64", 1),
        (("linux/arm/v5", "linux/arm/v6", "linux/arm/v8"), "linux/arm/v7", 1),
        (("linux/arm/v6", "linux/arm/v7"), "linux/arm/v7", 1),
        (("linux/arm64/v8",), "linux/arm64", 0),
        (("linux/arm64",), "linux/arm64/v8", 0),
    ],
)
def test_platform_of_an_index(offered: tuple[str, ...], wanted: str, chosen: int) -> None:
    found = manifest.choose(index(*offered), manifest.parse_platform(wanted), "x")
    assert found.digest == f"sha256:{chosen:064x}"


def test_no_platform_fits() -> None:
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x") as caught:
        manifest.choose(index("linux/amd64", "linux/arm64"), Platform(architecture="s390x"), "x")
    assert caught.value.hint == "it offers linux/amd64, linux/arm64"
