"""Flags of `build` and of the verbs about images: what they add up to, and what they refuse."""

from __future__ import annotations

import base64
import json
import os
import shlex
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from hawse.docker.build import BUILD, Output, Secret, build_query, first_line, output, secret
from hawse.docker.flags import Given, read
from hawse.docker.images import COMMIT, LOGIN, PULL, PUSH, SAVE, commit_query, operands, split
from hawse_agent.errors import InputError, NotSupported


def given(line: str, table: Any = BUILD) -> Given:
    return read(table, shlex.split(line), interspersed=True)


@mock.patch.dict(os.environ, {"OURS": "here"})
@pytest.mark.parametrize(
    ("line", "query"),
    [
        ("-t a -t b:2 .", {"t": ["a", "b:2"]}),
        (
            "--build-arg A=1 --build-arg OURS --build-arg NONE",
            {"buildargs": {"A": "1", "OURS": "here", "NONE": None}},
        ),
        ("--label a=b --label c", {"labels": {"a": "b", "c": ""}}),
        (
            "--target x --no-cache --pull --network none",
            {"target": "x", "nocache": True, "pull": True, "networkmode": "none"},
        ),
        (
            "--add-host db:10.0.0.1 --add-host h:host-gateway",
            {"extrahosts": ["db:10.0.0.1", "h:host-gateway"]},
        ),
        ("--shm-size 1m -m 64m --memory-swap=-1", {"shmsize": 1 << 20, "memory": 64 << 20, "memswap": -1}),
        (
            "-c 5 --cpu-period 1 --cpu-quota 2 --cpuset-cpus 0-1",
            {"cpushares": 5, "cpuperiod": 1, "cpuquota": 2, "cpusetcpus": "0-1"},
        ),
        ("--ulimit nofile=1:2", {"ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}]}),
        ("--cache-from a --cache-from b:2", {"cachefrom": ["a", "b:2"]}),
        ("--platform linux/amd64 --rm --force-rm", {"platform": "linux/amd64"}),
    ],
)
def test_the_query(line: str, query: dict[str, Any]) -> None:
    made = build_query(given(line), "D")
    for name in ("buildargs", "labels", "ulimits", "cachefrom"):
        if name in made:
            made[name] = json.loads(made[name])
    assert made == {"dockerfile": "D", **query}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id=a,src=/f", Secret(id="a", file="/f")),
        ("id=a,source=f,type=file", Secret(id="a", file="f")),
        ("id=a,env=V", Secret(id="a", variable="V")),
        ("type=env,id=a,src=V", Secret(id="a", variable="V")),
        ("id=OURS", Secret(id="OURS", variable="OURS")),
        ("id=b", Secret(id="b", file="b")),
        ('id=a,"src=/with,comma"', Secret(id="a", file="/with,comma")),
    ],
)
def test_secrets(text: str, expected: Secret) -> None:
    assert secret(text, {"OURS": "1"}) == [expected]


@pytest.mark.parametrize("text", ["src=/f", "id=a,src=f,env=V", "id=a,mode=1", "id", "id=a,type=ssh"])
def test_what_is_no_secret(text: str) -> None:
    with pytest.raises(ValueError, match=r"secret|exclude|expected|id"):
        secret(text, {})


def test_secrets_go_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\0\xff")
    line = first_line([Secret(id="a", file=str(tmp_path / "f")), Secret(id="b", variable="HOME")])
    sent = json.loads(line)["secrets"]
    assert line.count(b"\n") == 1 and base64.b64decode(sent["a"]) == b"\0\xff"
    assert base64.b64decode(sent["b"]).decode() == os.environ["HOME"]
    with pytest.raises(InputError, match="secret c: there is no variable NOWHERE_SET"):
        first_line([Secret(id="c", variable="NOWHERE_SET")])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("out", Output(kind="local", path="out")),
        ("-", Output(kind="tar", path="-")),
        ("type=local,dest=out", Output(kind="local", path="out")),
        ("type=tar,dest=x.tar", Output(kind="tar", path="x.tar")),
        ("type=tar", Output(kind="tar", path="-")),
    ],
)
def test_outputs(text: str, expected: Output) -> None:
    assert output(text) == expected


@pytest.mark.parametrize("text", ["type=local", "type=local,dest=-", "kind=local,dest=x"])
def test_what_is_no_output(text: str) -> None:
    with pytest.raises(ValueError, match=r"dest|stdout|unexpected"):
        output(text)


@pytest.mark.parametrize("kind", ["image", "docker", "oci", "registry", ""])
def test_outputs_that_are_refused(kind: str) -> None:
    with pytest.raises(NotSupported, match="--output"):
        output(f"type={kind},dest=x")


@pytest.mark.parametrize(
    "flag",
    [
        *(
            "allow",
            "annotation",
            "attest",
            "build-context",
            "cache-to",
            "cgroup-parent",
            "compress",
        ),
        *(
            "isolation",
            "load",
            "metadata-file",
            "provenance",
            "push",
            "sbom",
            "security-opt",
            "squash",
            "ssh",
        ),
    ],
)
def test_flags_that_are_refused_by_name(flag: str) -> None:
    with pytest.raises(NotSupported, match=f"--{flag} is not supported by hawse"):
        given(f"--{flag}=x .")


@pytest.mark.parametrize("line", ["--progress rawjson", "--cache-from type=registry,ref=x"])
def test_values_that_are_refused_by_name(line: str) -> None:
    with pytest.raises(NotSupported, match=f"{line} is not supported by hawse"):
        given(f"{line} .")


def test_flags_of_images() -> None:
    assert given("-a -q x", PULL).options == {"all-tags": True, "quiet": True}
    assert given("x --all-tags=false", PUSH).options == {"all-tags": False}
    assert given("-u me -p secret reg", LOGIN).options == {"username": "me", "password": "secret"}
    assert given("a -o f b", SAVE).operands == ["a", "b"]
    made = given("-m said -a me -c 'ENV A=1' --change 'USER b' -p=false box img:1", COMMIT)
    assert commit_query(made, "box", "img:1") == {
        "container": "box",
        "repo": "img",
        "tag": "1",
        "author": "me",
        "comment": "said",
        "pause": False,
        "changes": ["ENV A=1", "USER b"],
    }


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("nginx", ("nginx", "")),
        ("localhost:5000/a", ("localhost:5000/a", "")),
        ("localhost:5000/a:1", ("localhost:5000/a", "1")),
        ("a:1@sha256:x", ("a", "sha256:x")),
    ],
)
def test_references_are_split(reference: str, parts: tuple[str, str]) -> None:
    assert split(reference) == parts


def test_too_few_and_too_many_operands() -> None:
    for line in ("", "a b", "''"):
        with pytest.raises(InputError, match="pull: "):
            operands(given(line, PULL), "pull", "NAME")
