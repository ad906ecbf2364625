"""`hawse` and images, against a real agent and a real registry: what it does and says, as docker's client."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pty
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import busybox, imagefiles, isolation, registries
from tests.support.agent import BUSYBOX, AgentUnderTest
from tests.support.cli import Done, hawse, same
from tests.support.registries import PASSWORD, USER, DebianRegistry

from hawse.docker.credentials import DockerConfig, registry_config
from hawse.fleet.connect import socket_agent
from hawse.images.importer import import_archive
from hawse.images.store import ImageStore
from hawse_agent.distribution import manifest
from hawse_agent.spec.host import HostSpec, ImageSource, Item, StackSpec

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


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry that wants a password."""
    if not registries.available():
        pytest.skip("needs docker-registry and skopeo")
    with DebianRegistry(tmp_path_factory.mktemp("guarded"), password=True) as registry:
        yield registry.address


AS_USER = (f"--creds={USER}:{PASSWORD}",)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where hawse and docker keep what is theirs."""
    monkeypatch.setenv("HAWSE_HOME", str(tmp_path / "hawse"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path


def test_who_logs_in_may_push_and_pull(agent: AgentUnderTest, guarded: str, home: Path) -> None:
    name, config = f"{guarded}/team/box:1", home / "docker/config.json"
    out(agent, "tag", BUSYBOX, name)
    assert "no basic auth credentials" in hawse(agent.socket, "push", name, code=1).stderr
    wrong = hawse(agent.socket, "login", "-u", USER, "--password-stdin", guarded, code=1, input=b"wrong")
    assert "authentication required" in wrong.stderr and not config.exists()
    done = hawse(
        agent.socket, "login", "-u", USER, "--password-stdin", guarded, input=f"{PASSWORD}\n".encode()
    )
    assert done.stdout == "Login Succeeded\n" and "stored unencrypted" in done.stderr
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert "existing credentials" in out(agent, "login", guarded)

    ours = out(agent, "push", name)
    assert "The push refers to repository" in ours and "1: digest: sha256:" in ours
    assert out(agent, "push", "-q", name) == f"{name}\n"
    assert agent.docker("push", name).stdout == out(agent, "push", name)  # by what we have stored
    out(agent, "rmi", name)
    out(agent, "pull", "-q", name)
    out(agent, "rmi", name)
    assert out(agent, "run", "--rm", "--pull", "always", name, "echo", "hi") == "hi\n"

    for file in (*agent.root.rglob("*.log"), agent.root / "lib/state.db", agent.root / "lib/records.json"):
        assert PASSWORD.encode() not in file.read_bytes(), file
    assert out(agent, "logout", guarded) == f"Removing login credentials for {guarded}\n"
    assert out(agent, "logout", guarded) == f"Not logged in to {guarded}\n"
    assert hawse(agent.socket, "pull", name, code=1).stdout == ""


def test_what_docker_has_stored_is_used(agent: AgentUnderTest, guarded: str, home: Path) -> None:
    agent.docker("login", "-u", USER, "--password-stdin", guarded, input=PASSWORD)
    out(agent, "tag", BUSYBOX, f"{guarded}/docker:1")
    out(agent, "push", f"{guarded}/docker:1")
    agent.docker("logout", guarded)
    assert "denied" in hawse(agent.socket, "pull", f"{guarded}/docker:1", code=1).stderr


def test_login_asks_for_what_is_missing(agent: AgentUnderTest, guarded: str, home: Path) -> None:
    assert "non TTY" in refused(agent, "login", guarded).stderr
    assert "--username" in refused(agent, "login", "--password-stdin", guarded).stderr
    both = ("login", "-u", "a", "-p", "b", "--password-stdin", guarded)
    assert "mutually exclusive" in refused(agent, *both).stderr
    done = hawse(agent.socket, "--debug", "login", "-u", USER, "-p", PASSWORD, guarded)
    assert "insecure" in done.stderr and PASSWORD not in done.stdout + done.stderr


def test_login_prompts_on_a_terminal(agent: AgentUnderTest, guarded: str, home: Path) -> None:
    said = at_a_terminal(agent, ["login", guarded], {b"Username: ": USER, b"Password: ": PASSWORD})
    assert said.endswith("Login Succeeded") and PASSWORD not in said
    again = at_a_terminal(agent, ["login", guarded], {})
    assert f"existing credentials... [Username: {USER}]" in again and again.endswith("Login Succeeded")


def at_a_terminal(agent: AgentUnderTest, words: list[str], answers: dict[bytes, str]) -> str:
    """What is seen there by somebody who answers prompts."""
    pid, terminal = pty.fork()
    if pid == 0:
        environment = {**os.environ, "HAWSE_SOCKET": str(agent.socket)}
        os.execve(sys.executable, [sys.executable, "-m", "hawse", *words], environment)
    seen, left = b"", dict(answers)
    with os.fdopen(terminal, "r+b", buffering=0) as file, contextlib.suppress(OSError):  # EIO: it has ended
        while piece := file.read(4096):
            seen += piece
            for prompt in [prompt for prompt in left if seen.endswith(prompt)]:
                file.write(f"{left.pop(prompt)}\n".encode())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, seen
    return seen.decode().replace("\r\n", "\n").strip()


def test_the_controller_holds_what_it_has_pulled(
    agent: AgentUnderTest, guarded: str, home: Path, tmp_path: Path
) -> None:
    name = f"{guarded}/held:1"
    hawse(agent.socket, "login", "-u", USER, "--password-stdin", guarded, input=PASSWORD.encode())
    identity = agent.client.images.get(BUSYBOX).id
    out(agent, "tag", BUSYBOX, name)
    out(agent, "push", "-q", name)
    out(agent, "rmi", name)
    lines = out(agent, "image", "pull", name).splitlines()
    assert "1: Pulling from held" in lines[0] and lines[-1] == name
    assert any(line.endswith(": Pull complete") for line in lines)
    assert any(line.endswith(": Already exists") for line in out(agent, "image", "pull", name).splitlines())
    [held] = json.loads(out(agent, "--json", "image", "ls"))
    assert held["variants"][0]["id"] == identity
    assert "no such image here" in refused(agent, "image", "inspect", "nowhere").stderr
    assert out(agent, "image", "inspect", "-f", "{{.Id}} {{.Platform}}", name).split()[0] == identity
    other = hawse(agent.socket, "image", "pull", "--platform", "linux/s390x", name, code=1)
    assert "not for linux/s390x" in other.stderr

    assert out(agent, "image", "send", name) == f"localhost: {name} is {identity[:19]}, 0 B sent\n"
    assert agent.client.images.get(name).id == identity
    target = tmp_path / "held.tar"
    out(agent, "image", "save", "-o", str(target), name)
    for kind in ("docker-archive", "oci-archive"):
        config = skopeo("inspect", "--config", "--raw", f"{kind}:{target}")
        assert json.loads(config) == json.loads(skopeo_config(agent, tmp_path))
    out(agent, "image", "rm", name)
    assert json.loads(out(agent, "--json", "image", "ls")) == []
    assert name in out(agent, "image", "load", "-i", str(target))
    assert name in out(agent, "image", "load", input=target.read_bytes())
    assert out(agent, "image", "prune") == "Total reclaimed space: 0B\n"


def test_what_is_held_here_is_pushed(agent: AgentUnderTest, guarded: str, home: Path) -> None:
    name, index = f"{guarded}/theirs:1", f"{guarded}/many:1"
    store = ImageStore(home / "hawse/images")
    layer = imagefiles.files({"a": "1" * 100_000})
    held = [
        import_archive(
            store,
            written(home, imagefiles.docker_archive([(config(layer, architecture), [layer], [one])])),
        )[0].variants[0]
        for architecture, one in (("amd64", name), ("arm64", "other:1"))
    ]
    store.add_index([index], {one.manifest: manifest.parse_platform(one.platform) for one in held})
    denied = hawse(agent.socket, "image", "push", name, code=None)
    assert denied.code == 1 and "no basic auth credentials" in denied.stderr
    hawse(agent.socket, "login", "-u", USER, "--password-stdin", guarded, input=PASSWORD.encode())

    first, *_, said, last = out(agent, "image", "push", name).splitlines()
    digest = held[0].manifest
    assert first == f"The push refers to repository [{guarded}/theirs]"
    assert said.startswith(f"1: digest: {digest} size: ") and last == f"{guarded}/theirs@{digest}"
    assert "Layer already exists" in out(agent, "image", "push", name)
    assert out(agent, "image", "push", "-q", index) == f"{guarded}/many@{store.top(index)}\n"
    for one, kept in ((name, digest), (index, store.top(index))):
        raw = skopeo("inspect", "--raw", "--tls-verify=false", *AS_USER, f"docker://{one}")
        assert f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}" == kept
    out(agent, "pull", "-q", index)
    assert agent.client.images.get(index).id == held[0].id
    assert "no such image here" in refused(agent, "image", "push", f"{guarded}/nowhere:1").stderr
    assert "digest" in refused(agent, "image", "push", f"{guarded}/theirs@{digest}").stderr


def test_what_only_this_machines_agent_has_is_fetched_and_sent(agent: AgentUnderTest, home: Path) -> None:
    identity = agent.client.images.get(BUSYBOX).id
    done = hawse(agent.socket, "image", "send", BUSYBOX)
    assert done.stdout == f"localhost: {BUSYBOX} is {identity[:19]}, 0 B sent\n"
    assert done.stderr == f"{BUSYBOX} is fetched from this machine's agent, and held here\n"
    again = hawse(agent.socket, "image", "send", BUSYBOX)
    assert (again.stdout, again.stderr) == (done.stdout, "")
    for name in (identity[7:19], "nowhere"):
        assert "no such image here" in refused(agent, "image", "send", name).stderr


def config(layer: bytes, architecture: str) -> bytes:
    made = json.loads(imagefiles.config([imagefiles.sha256(layer)]))
    return json.dumps({**made, "architecture": architecture}).encode()


def written(directory: Path, data: bytes) -> Path:
    path = directory / "archive.tar"
    path.write_bytes(data)
    return path


def skopeo(*words: str) -> str:
    return subprocess.run(["skopeo", *words], check=True, capture_output=True, text=True).stdout


def skopeo_config(agent: AgentUnderTest, directory: Path) -> str:
    archive = directory / "agents.tar"
    archive.write_bytes(b"".join(agent.client.images.get(BUSYBOX).save()))
    return skopeo("inspect", "--config", "--raw", f"docker-archive:{archive}")


def test_search_is_dockers(agent: AgentUnderTest) -> None:
    results = [
        {
            "name": "team/box",
            "description": "A box\nof " + "many words " * 9,
            "star_count": 7,
            "is_official": True,
        },
        {"name": "b", "description": "", "star_count": 0, "is_official": False, "is_automated": False},
    ]
    with registries.index(results) as index:
        term = f"{index.serving.address}/b"
        for words in ((), ("--no-trunc",), ("--limit", "1"), ("--format", "json"), ("-f", "stars=3")):
            same(agent, "search", *words, term)
        same(agent, "search", "--format", "table {{.Name}}\t{{.IsOfficial}}\t{{.StarCount}}", term)
        assert json.loads(out(agent, "--json", "search", term))["localhost"][0]["name"] == "team/box"


def test_images_of_this_machine_are_pruned_by_name(agent: AgentUnderTest) -> None:
    out(agent, "import", "-", "gone:1", input=root_tar(z="3"))
    out(agent, "import", "-", "gone:1", input=root_tar(z="4"))
    answer = out(agent, "prune", "-f")
    assert "Deleted Images:\ndeleted: sha256:" in answer


def test_a_stack_pulls_from_a_registry_that_wants_a_password(
    agent: AgentUnderTest, guarded: str, home: Path
) -> None:
    name = f"{guarded}/stack:1"
    hawse(agent.socket, "login", "-u", USER, "--password-stdin", guarded, input=PASSWORD.encode())
    out(agent, "tag", BUSYBOX, name)
    out(agent, "push", "-q", name)
    out(agent, "rmi", name)
    registries = DockerConfig(home / "docker/config.json")
    found = [known for known in [registries.get(guarded)] if known is not None]
    spec = HostSpec(
        items=(Item(id="1", name="stack", stack=StackSpec(name="s", images=(ImageSource(reference=name),))),)
    )
    with socket_agent(agent.socket) as client:
        plan = client.plan(spec)
        assert [(op.action, op.kind) for op in plan.plan.operations] == [("pull", "image")]
        *_, denied = client.apply(spec, plan.plan.digest)
        assert denied["failed"] and "denied" in denied["error"]["message"]
        *_, end = client.apply(spec, plan.plan.digest, headers=registry_config(found))
        assert not end["failed"] and end["changed"] == 1
    assert PASSWORD.encode() not in (agent.root / "lib/state.db").read_bytes()
