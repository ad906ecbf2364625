"""`hawse` and images, against a real agent and a real registry: what it does and says, as docker's client."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest
from tests.support.cli import Done, hawse, same

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]


@pytest.fixture
def agent(agent: AgentUnderTest) -> Iterator[AgentUnderTest]:
    """With busybox alone once more after each test."""
    yield agent
    for image in agent.client.images.list():
        for tag in image.tags or [image.id]:
            if tag != BUSYBOX:
                agent.client.images.remove(tag, force=True)


def out(agent: AgentUnderTest, *words: str, code: int = 0, input: bytes = b"") -> str:
    return hawse(agent.socket, *words, code=code, input=input).stdout


def refused(agent: AgentUnderTest, *words: str, input: bytes = b"") -> Done:
    done = hawse(agent.socket, *words, code=None, input=input)
    assert done.code in (1, 2) and done.stdout == "", done
    return done


def root_tar(**files: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return data.getvalue()


def test_names_come_and_go(agent: AgentUnderTest) -> None:
    assert out(agent, "tag", BUSYBOX, "team/box") == ""
    out(agent, "tag", "team/box", "team/box:2")
    names = out(agent, "images", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert {"team/box:latest", "team/box:2"} <= set(names)
    assert out(agent, "rmi", "team/box") == "Untagged: team/box:latest\n"
    done = hawse(agent.socket, "rmi", "nowhere", "team/box:2", code=1)
    assert done.stdout == "Untagged: team/box:2\n" and "No such image: nowhere" in done.stderr
    assert "No such image" in hawse(agent.socket, "rmi", "-f", "nowhere").stderr
    assert "invalid reference format" in refused(agent, "tag", BUSYBOX, "Upper").stderr


def test_the_history_is_dockers(agent: AgentUnderTest) -> None:
    for words in (
        (),
        ("--no-trunc",),
        ("-q",),
        ("-H=false",),
        ("--format", "{{json .}}"),
        ("--format", "{{.ID}} {{.CreatedBy}} {{.Size}} {{.CreatedAt}}"),
        ("--format", "table {{.CreatedSince}}\t{{.Comment}}"),
    ):
        same(agent, "history", *words, BUSYBOX)
    assert json.loads(out(agent, "--json", "history", BUSYBOX))["localhost"][0]["Tags"] == [BUSYBOX]


def test_images_go_into_archives_and_come_back(agent: AgentUnderTest, tmp_path: Path) -> None:
    out(agent, "import", "-", "box:a", input=root_tar(y="2"))
    out(agent, "import", "-", "other:b", "-c", 'CMD ["x"]', "-m", "by hand", input=root_tar(x="1"))
    identity = agent.client.images.get("other:b").id
    target = tmp_path / "both.tar"
    assert out(agent, "save", "-o", str(target), "box:a", "other:b") == ""
    piped = hawse(agent.socket, "save", "box:a", "other:b", binary=True)
    assert piped.data == target.read_bytes() and list(tmp_path.iterdir()) == [target]
    out(agent, "rmi", "box:a", "other:b")
    assert out(agent, "load", "-i", str(target)) == "Loaded image: box:a\nLoaded image: other:b\n"
    assert agent.client.images.get("other:b").id == identity
    out(agent, "rmi", "box:a", "other:b")
    assert out(agent, "load", "-q", input=target.read_bytes()).splitlines()[0] == "Loaded image: box:a"
    assert agent.docker("load", "-q", "-i", str(target)).stdout == out(agent, "load", "-q", "-i", str(target))
    assert "to a terminal" in hawse(agent.socket, "save", "box:a", code=2, terminal=True).stderr
    assert "No such image" in refused(agent, "save", "nowhere").stderr
    assert "no such file" in refused(agent, "load", "-i", str(tmp_path / "none")).stderr


def test_a_root_directory_becomes_an_image(agent: AgentUnderTest, tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_bytes(root_tar(f="1"))
    words = ("import", "-c", "ENV A=1", "--change", "LABEL b=2", "-m", "said", str(tmp_path / "root.tar"))
    identity = out(agent, *words, "made:1").strip()
    image = agent.client.images.get("made:1")
    assert image.id == identity and image.attrs["Comment"] == "said"
    assert image.attrs["Config"]["Env"] == ["A=1"] and image.labels == {"b": "2"}
    assert "from a URL is not supported" in refused(agent, "import", "http://127.0.0.1/x.tar").stderr


def test_what_is_not_there_is_refused_by_name(agent: AgentUnderTest) -> None:
    assert "--platform is not supported" in refused(agent, "push", "--platform", "linux/arm64", "x").stderr
    assert "expected NAME[:TAG]" in refused(agent, "push").stderr
    assert "unknown flag: --colour" in refused(agent, "pull", "--colour", "x").stderr
    assert "--all-tags" in refused(agent, "pull", "-a", "x:1").stderr


def test_an_image_is_pulled(agent: AgentUnderTest, pushed: str) -> None:
    lines = out(agent, "pull", pushed).splitlines()
    assert lines[0].startswith("1: Pulling from team/box") and lines[-1] == pushed
    assert any(line.startswith("Status: ") for line in lines)
    assert out(agent, "pull", "-q", pushed) == f"{pushed}\n"
    repository = pushed.rpartition(":")[0]
    said = refused(agent, "pull", f"{repository}:2").stderr
    assert "manifest unknown" in said
    again = agent.docker("pull", pushed).stdout
    assert out(agent, "pull", pushed) == again
