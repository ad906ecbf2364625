"""`hawse build` against a real agent: contexts, secrets, outputs, what it says, and its exit codes."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import busybox, isolation
from tests.support.agent import AgentUnderTest
from tests.support.builds import FROM, Project
from tests.support.cli import Done, hawse

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]


@pytest.fixture
def project(agent: AgentUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setenv("HAWSE_HOME", str(tmp_path / "hawse"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    directory = tmp_path / "context"
    directory.mkdir()
    project = Project(agent, directory)
    yield project
    project.clear()


def build(
    project: Project, *words: str, code: int = 0, input: bytes = b"", path: str = "", terminal: bool = False
) -> Done:
    return hawse(
        project.agent.socket,
        *("build", *words, path or str(project.directory)),
        code=code,
        input=input,
        terminal=terminal,
    )


def file_of(project: Project, path: str, image: str = "t") -> str:
    return project.run(image, "cat", path)


def test_it_says_what_docker_says(project: Project) -> None:
    project.write(
        {"Dockerfile": FROM + "ARG A=0\nRUN echo [$A]\nCOPY . /in/\n", "f": "1", ".dockerignore": "x"}
    )
    words = ("-t", "t", "-t", "u:2", "--build-arg", "A=1", "--label", "l=v")
    build(project, *words)
    ours = build(project, *words).stdout
    assert project.build(None, *words).endswith(f"\n{ours}")
    assert "Using cache" in ours and "Successfully tagged u:2" in ours
    identity = project.agent.client.images.get("t").id
    assert build(project, "-q", *words).stdout == f"{identity}\n"
    assert build(project, "--progress", "quiet", *words).stdout == f"{identity}\n"
    iidfile = project.directory.parent / "id"
    build(project, "--iidfile", str(iidfile), *words)
    assert iidfile.read_text() == identity


def test_contexts(project: Project, tmp_path: Path) -> None:
    project.write({"f": "inside\n", "g": "ignored\n", ".dockerignore": "g\n"})
    outside = tmp_path / "other.Dockerfile"
    outside.write_text(FROM + "COPY . /in/\nRUN ls -A /in > /list\n")
    build(project, "-t", "t", "-f", str(outside))
    assert file_of(project, "/list").split() == [".dockerignore", "f"]
    build(project, "-t", "t", "-f", "-", input=outside.read_bytes())
    assert file_of(project, "/list").split() == [".dockerignore", "f"]
    project.write({"sub/D": FROM + "COPY f /f\nUSER 7\n", "sub/D.dockerignore": "sub\n"})
    build(project, "-t", "t", "-f", str(project.directory / "sub/D"))
    assert file_of(project, "/f") == "inside\n"
    build(project, "-t", "t", "--no-cache", input=b"FROM busybox:test\nRUN echo alone > /f\n", path="-")
    assert file_of(project, "/f") == "alone\n"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(outside, "D")
        tar.add(project.directory / "f", "f")
    build(project, "-t", "t", "-f", "D", input=packed.getvalue(), path="-")
    assert file_of(project, "/list").split() == ["D", "f"]


def test_secrets_are_nowhere_afterwards(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cret-of-environment")
    project.write(
        {
            "Dockerfile": FROM
            + "".join(
                f"RUN --mount=type=secret,id={name} wc -c < /run/secrets/{name} >> /sizes\n"
                for name in ("file", "TOKEN", "named")
            )
        }
    )
    (project.directory.parent / "secret").write_text("s3cret-of-file")
    done = build(
        project,
        *("-t", "t", "--secret", f"id=file,src={project.directory.parent / 'secret'}"),
        *("--secret", "id=TOKEN", "--secret", "id=named,env=TOKEN"),
    )
    assert file_of(project, "/sizes").split() == ["14", "21", "21"]
    for file in project.agent.root.rglob("*"):
        if file.is_file() and not file.is_symlink() and file.stat().st_size < 1 << 22:
            assert b"s3cret" not in file.read_bytes(), file
    assert "s3cret" not in done.stdout + done.stderr
    missing = build(project, "--secret", "id=x,src=/nowhere", code=2)
    assert "secret x: /nowhere: No such file" in missing.stderr


def test_outputs_are_files_instead_of_an_image(project: Project, tmp_path: Path) -> None:
    project.write(
        {
            "Dockerfile": FROM
            + "RUN echo 1 > /made && chmod 700 /made\nFROM scratch\nCOPY --from=0 /made /d/made\n"
        }
    )
    before = {image.id for image in project.agent.client.images.list(all=True)}
    build(project, "-o", str(tmp_path / "out"))
    made = tmp_path / "out/d/made"
    assert made.read_text() == "1\n" and made.stat().st_mode & 0o777 == 0o700
    build(project, "-o", f"type=tar,dest={tmp_path / 'out.tar'}")
    done = hawse(project.agent.socket, "build", "-o", "-", str(project.directory), binary=True)
    for data in ((tmp_path / "out.tar").read_bytes(), done.data):
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            assert "d/made" in [name.removeprefix("./") for name in tar.getnames()]
    assert {image.id for image in project.agent.client.images.list(all=True)} == before
    assert "Step 1/4" in done.stderr
    build(project, "-t", "kept", "-o", str(tmp_path / "out"))
    assert project.agent.client.images.get("kept")


def test_what_fails_says_where(project: Project) -> None:
    project.write({"Dockerfile": FROM + "RUN echo before; exit 7\n"})
    done = build(project, code=7)
    assert "before\n" in done.stdout and "Dockerfile:2" in done.stderr and "code: 7" in done.stderr
    quiet = build(project, "-q", code=7)
    assert quiet.stdout == "" and "before" in quiet.stderr
    project.write({"Dockerfile": FROM + "RUM x\n"})
    done = build(project, code=2)
    assert "Dockerfile:2" in done.stderr and "RUM" in done.stderr and done.stdout == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--ssh", "default", "."), "--ssh is not supported"),
        (("https://example.org/x.git",), "a context from elsewhere is not supported"),
        (("git@example.org:x.git",), "a context from elsewhere is not supported"),
        (("-o", "type=oci,dest=x", "."), "type=oci is not supported"),
        (("--send", "web", "."), "--send needs a name"),
        (("/nowhere",), "/nowhere is no directory"),
        (("-f", "nowhere", "."), "no such Dockerfile: nowhere"),
        (("--progress", "rawjson", "."), "--progress rawjson is not supported"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    project: Project, words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.directory)
    project.write({"Dockerfile": FROM})
    done = hawse(project.agent.socket, "build", *words, code=2)
    assert said in done.stderr and done.stdout == ""


def test_an_image_is_a_cache_where_it_is_named(project: Project) -> None:
    project.write({"Dockerfile": FROM + "RUN cat /proc/sys/kernel/random/uuid > /u\n"})
    build(project, "-t", "t")
    value = file_of(project, "/u")
    saved = b"".join(project.agent.client.images.get("t").save(named=True))
    project.agent.client.images.remove("t", force=True)
    hawse(project.agent.socket, "builder", "prune", "-af")
    project.agent.client.images.load(saved)
    assert "Using cache" in build(project, "--cache-from", "t", "-t", "u").stdout
    assert file_of(project, "/u", "u") == value


def test_the_cache_is_pruned_by_dockers_names(project: Project) -> None:
    def prune(*words: str, input: bytes = b"", code: int = 0) -> Done:
        return hawse(project.agent.socket, "builder", "prune", *words, input=input, code=code)

    project.write({"Dockerfile": FROM + "RUN head -c 200000 /dev/zero | tr '\\0' x > /a\n"})
    build(project, "-t", "t")
    asked = prune(input=b"n\n", code=1)
    assert "all dangling build cache" in asked.stdout and "cancelled" in asked.stderr
    nothing = "Total reclaimed space: 0B\n"
    assert prune("-f").stdout == nothing  # the image has its layer
    project.agent.client.images.remove("t", force=True)
    assert prune("-f", "--filter", "until=1h").stdout == nothing
    assert prune("-f", "--filter", "type=exec.cachemount").stdout == nothing
    assert prune("-f", "--keep-storage", "10MB").stdout == nothing
    hawse(project.agent.socket, "prune", "-af", "--filter", "label=of=nobody")  # the cache has no labels
    done = prune("-a", "--keep-storage", "1kb", input=b"y\n").stdout
    assert "Deleted build cache objects:" in done and not done.endswith(nothing)
    assert "invalid filter 'x'" in prune("-f", "--filter", "x=1", code=2).stderr
    assert "--keep-storage" in prune("--keep-storage", "much", code=2).stderr


def test_a_terminal_sees_the_steps(project: Project) -> None:
    project.write({"Dockerfile": FROM + "RUN echo one line\nRUN echo told; exit 3\n"})
    said = build(project, terminal=True, code=3).stdout
    assert "[1/3] FROM busybox:test" in said and "[3/3] RUN echo told; exit 3" in said
    assert "told" in said.rpartition("failed")[2]


def test_the_agents_image_is_fetched_layer_by_layer(project: Project, tmp_path: Path) -> None:
    from hawse.fleet.connect import socket_agent
    from hawse.images.fetch import fetch
    from hawse.images.store import ImageStore

    project.write({"Dockerfile": FROM + "RUN dd if=/dev/zero of=/zeros bs=1M count=3\nENV A=1\n"})
    build(project, "-t", "t")
    store, moved = ImageStore(tmp_path / "store"), list[int]()
    with socket_agent(project.agent.socket) as client:
        image = fetch(client, store, "t", "t", progress=moved.append)
        assert image.variants[0].id == project.agent.client.images.get("t").id
        assert sum(moved) > 3 << 20 and image.variants[0].size < sum(moved)
        moved.clear()
        assert fetch(client, store, "t", "u", progress=moved.append).variants == image.variants
        assert moved == []
    subprocess.run(["skopeo", "inspect", f"oci:{tmp_path / 'store'}:{image.reference}"], check=True)
