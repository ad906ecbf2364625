"""Images to and from real registries, by Docker's clients through our socket; skopeo reads what we have
pushed."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import pytest
from tests.support import agent as agents
from tests.support import busybox, certificates, imagefiles, isolation, registries
from tests.support.agent import BUSYBOX, AgentUnderTest
from tests.support.registries import PASSWORD, USER, DebianRegistry

pytestmark = pytest.mark.skipif(not registries.available(), reason="needs docker-registry and skopeo")

CERTIFICATES = "certs.d"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registries")


@pytest.fixture(scope="module")
def daemon(place: Path) -> Iterator[AgentUnderTest]:
    session = isolation.current()
    if session is None or not busybox.available():
        pytest.skip("needs a session (make test) and busybox-static")
    root = agents.new_root(session.directory)
    (root / "etc").mkdir(parents=True)
    (root / "etc/agent.toml").write_text(f'[registries]\ncertificates = "{place / CERTIFICATES}"\n')
    with AgentUnderTest(root) as daemon:
        daemon.load_busybox()
        daemon.client.networks.create("warm")
        daemon.client.containers.run(BUSYBOX, "true", network="warm", remove=True)
        daemon.clear()
        yield daemon


@pytest.fixture(scope="module")
def plain(place: Path) -> Iterator[DebianRegistry]:
    with DebianRegistry(place / "plain") as registry:
        yield registry


@pytest.fixture(scope="module")
def own(place: Path) -> Iterator[DebianRegistry]:
    """With TLS by an authority of its own, and passwords."""
    authority = certificates.authority()
    server = certificates.of_server(authority, "127.0.0.1").write(place, "server")
    with DebianRegistry(place / "own", tls=server, password=True) as registry:
        directory = place / CERTIFICATES / registry.address
        directory.mkdir(parents=True)
        authority.write(directory, "ca")[1].unlink()
        yield registry


@pytest.fixture
def names(agent: AgentUnderTest) -> Iterator[list[str]]:
    """Images to be removed after the test."""
    made: list[str] = []
    yield made
    for name in made:
        agent.docker("rmi", name, code=None)


def out(agent: AgentUnderTest, *words: str) -> str:
    return agent.docker(*words).stdout.strip()


def skopeo(*words: str) -> Any:
    done = subprocess.run(["skopeo", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if words[0] == "inspect" else done.stdout


def inspect(name: str, *options: str) -> Any:
    return skopeo("inspect", "--tls-verify=false", *options, f"docker://{name}")


def auth(agent: AgentUnderTest, username: str = USER, password: str = PASSWORD) -> dict[str, str]:
    return {"username": username, "password": password}


def test_push_and_pull_again(agent: AgentUnderTest, plain: DebianRegistry, names: list[str]) -> None:
    name = f"{plain.address}/team/box:1"
    names.append(name)
    out(agent, "tag", BUSYBOX, name)
    told = out(agent, "push", name)
    assert f"The push refers to repository [{plain.address}/team/box]" in told
    assert ": Pushed" in told
    digest = inspect(name)["Digest"]
    assert f"1: digest: {digest} size: " in told
    [layer] = json.loads(skopeo_raw(name))["layers"]
    assert layer["mediaType"].endswith(".tar+gzip"), "what was made here is compressed"
    assert "Layer already exists" in out(agent, "push", name)
    assert f"{plain.address}/team/box@{digest}" in out(agent, "inspect", "-f", "{{.RepoDigests}}", name)
    before = out(agent, "inspect", "-f", "{{.Id}}", name)
    out(agent, "rmi", name)
    told = out(agent, "pull", name)
    assert f"Digest: {digest}" in told and f"Status: Downloaded newer image for {name}" in told
    assert out(agent, "inspect", "-f", "{{.Id}}", name) == before
    assert out(agent, "run", "--rm", name, "cat", "/etc/passwd").startswith("root:")


def skopeo_raw(name: str) -> str:
    return subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"],
        capture_output=True,
        text=True,
    ).stdout


def layered(agent: AgentUnderTest, content: bytes, tag: str) -> None:
    """busybox and one file more, under this name."""
    container = agent.client.containers.create(BUSYBOX, "true")
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        info = tarfile.TarInfo("added")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    container.put_archive("/", tar.getvalue())
    repository, _, word = tag.rpartition(":")
    container.commit(repository, word)
    container.remove()


def test_layers_are_mounted_and_skopeo_reads_them(
    agent: AgentUnderTest, plain: DebianRegistry, names: list[str], tmp_path: Path
) -> None:
    base, app = f"{plain.address}/mounts/base:1", f"{plain.address}/mounts/app:1"
    names += [app, base]
    out(agent, "tag", BUSYBOX, base)
    out(agent, "push", "-q", base)
    layered(agent, b"what is new" * 1000, app)
    told = out(agent, "push", app)
    assert told.count(": Mounted from mounts/base") == 1 and told.count(": Pushed") == 1
    skopeo("copy", "--src-tls-verify=false", f"docker://{app}", f"oci:{tmp_path / 'oci'}:x")
    config = skopeo("inspect", "--config", f"oci:{tmp_path / 'oci'}:x")
    assert len(config["rootfs"]["diff_ids"]) == 2


def test_an_image_goes_on_as_it_came(
    agent: AgentUnderTest, plain: DebianRegistry, names: list[str], tmp_path: Path
) -> None:
    """Docker's formats and OCI's, gzip and zstd: the digest stays."""
    source = f"{plain.address}/as/source"
    names.append(f"{source}:0")
    out(agent, "tag", BUSYBOX, f"{source}:0")
    out(agent, "push", "-q", f"{source}:0")
    for tag, options in {
        "v2s2": ["--format", "v2s2"],
        "zstd": ["--format", "oci", "--dest-compress-format", "zstd"],
        "plain": ["--format", "oci", "--dest-decompress"],
    }.items():
        options += ["--src-tls-verify=false", "--dest-tls-verify=false"]
        if tag == "plain":
            skopeo("copy", *options[:3], options[3], f"docker://{source}:0", f"dir:{tmp_path / 'dir'}")
            skopeo("copy", "--dest-tls-verify=false", f"dir:{tmp_path / 'dir'}", f"docker://{source}:{tag}")
        else:
            skopeo("copy", *options, f"docker://{source}:0", f"docker://{source}:{tag}")
        target = f"{plain.address}/as/target:{tag}"
        names += [f"{source}:{tag}", target]
        out(agent, "pull", f"{source}:{tag}")
        out(agent, "tag", f"{source}:{tag}", target)
        out(agent, "push", target)
        assert inspect(target)["Digest"] == inspect(f"{source}:{tag}")["Digest"], tag


def test_all_tags(agent: AgentUnderTest, plain: DebianRegistry, names: list[str]) -> None:
    repository = f"{plain.address}/many"
    tags = [f"{repository}:{word}" for word in ("a", "b", "c")]
    names += tags
    for tag in tags:
        out(agent, "tag", BUSYBOX, tag)
    assert out(agent, "push", "-a", repository).count("digest: sha256:") == 3
    out(agent, "rmi", *tags)
    told = out(agent, "pull", "-a", repository)
    assert all(f"{word}: Pulling from many" in told for word in ("a", "b", "c"))
    assert len(out(agent, "images", "-q", repository).split()) == 3
    assert "does not exist locally" in agent.docker("push", "-a", f"{repository}-not", code=1).stderr


def test_tls_and_passwords(agent: AgentUnderTest, own: DebianRegistry, names: list[str]) -> None:
    repository = f"{own.address}/private/box"
    names.append(f"{repository}:1")
    out(agent, "tag", BUSYBOX, f"{repository}:1")
    images = agent.client.images
    refused = images.push(repository, "1")
    assert "no basic auth credentials" in refused
    assert "digest: sha256:" in images.push(repository, "1", auth_config=auth(agent))
    out(agent, "rmi", f"{repository}:1")
    with pytest.raises(docker.errors.NotFound, match="pull access denied"):
        images.pull(repository, "1")
    with pytest.raises(docker.errors.NotFound, match="pull access denied") as caught:
        images.pull(repository, "1", auth_config=auth(agent, password="not-the-secret"))
    assert "not-the-secret" not in str(caught.value)
    assert images.pull(repository, "1", auth_config=auth(agent)).tags


def test_login_keeps_nothing(agent: AgentUnderTest, own: DebianRegistry, tmp_path: Path) -> None:
    def login(password: str, code: int) -> str:
        words = ("--config", str(tmp_path), "login", "-u", USER, "--password-stdin", own.address)
        done = agent.docker(*words, input=password, code=code)
        return done.stdout + done.stderr

    assert "Login Succeeded" in login(PASSWORD, 0)
    assert "unauthorized" in login("wrong-one", 1)
    kept = json.loads((tmp_path / "config.json").read_text())["auths"][own.address]["auth"]
    assert base64.b64decode(kept).decode() == f"{USER}:{PASSWORD}"
    for path in agent.root.rglob("*"):
        if path.is_file() and path.stat().st_size < 1 << 20:
            assert PASSWORD.encode() not in path.read_bytes(), path
    answer = agent.client.api._post(
        agent.client.api._url("/auth"),
        json={"username": USER, "password": "wrong-one", "serveraddress": own.address},
    )
    assert answer.status_code == 401
    assert answer.json()["message"].startswith(f'Get "https://{own.address}/v2/": unauthorized')


def test_a_certificate_that_nobody_vouches_for(agent: AgentUnderTest, own: DebianRegistry) -> None:
    place = own.storage.parents[1] / CERTIFICATES / own.address
    (place / "ca.crt").rename(place / "away")
    other = certificates.authority("another")
    other.write(place, "ca")[1].unlink()
    try:
        failed = agent.docker("pull", f"{own.address}/private/box:1", code=1).stderr
        assert "its certificate is not trusted" in failed
    finally:
        (place / "away").rename(place / "ca.crt")


def test_tokens(agent: AgentUnderTest, place: Path, names: list[str]) -> None:
    """docker-registry verifies the signatures: who may pull and push is in the token."""
    signing = certificates.signing()
    bundle, _ = signing.write(place, "signing")
    with registries.token_service(signing, refresh="a-refresh-token") as service:
        settings = {
            "realm": f"http://127.0.0.1:{service.serving.port}/token",
            "service": "registry",
            "issuer": "tests",
            "rootcertbundle": str(bundle),
        }
        with DebianRegistry(place / "tokens", tokens=settings) as registry:
            open_, closed = f"{registry.address}/public/box", f"{registry.address}/private/box"
            names += [f"{open_}:1", f"{closed}:1"]
            images = agent.client.images
            for repository in (open_, closed):
                out(agent, "tag", BUSYBOX, f"{repository}:1")
                assert "unauthorized: authentication required" in images.push(repository, "1")
                assert "digest: sha256:" in images.push(repository, "1", auth_config=auth(agent))
            out(agent, "rmi", f"{open_}:1", f"{closed}:1")
            before = len(service.serving.requests)
            images.pull(open_, "1")
            with pytest.raises(docker.errors.NotFound, match="pull access denied"):
                images.pull(closed, "1")
            images.pull(closed, "1", auth_config=auth(agent))
            images.pull(closed, "1", auth_config=auth(agent))
            assert len(service.serving.requests) == before + 3, "a token is used until it expires"
            who = {"identitytoken": "a-refresh-token"}
            images.pull(closed, "1", auth_config=who)
            assert service.serving.requests[-1][0] == "POST"
            login = {"username": USER, "password": PASSWORD, "serveraddress": registry.address}
            api = agent.client.api
            answer = api._post(api._url("/auth"), json=login).json()
            assert answer == {"Status": "Login Succeeded", "IdentityToken": "a-refresh-token"}
            answer = api._post(api._url("/auth"), json={**login, "password": "wrong"})
            assert (answer.status_code, "incorrect username or password" in answer.text) == (401, True)


def test_search(agent: AgentUnderTest, plain: DebianRegistry) -> None:
    results = [
        {"name": "team/box", "description": "of ours", "star_count": 3, "is_official": False},
        {"name": "box", "description": "of all", "star_count": 900, "is_official": True},
        {"name": "boxes", "description": "", "star_count": 0, "is_official": False},
    ]
    with registries.index(results) as index:
        at = index.serving.address
        lines = out(agent, "search", "--format", "{{.Name}} {{.StarCount}} {{.IsOfficial}}", f"{at}/box")
        assert lines.splitlines() == ["team/box 3 ", "box 900 [OK]", "boxes 0"]
        assert out(agent, "search", "-f", "is-official=true", "--format", "{{.Name}}", f"{at}/box") == "box"
        assert out(agent, "search", "-f", "stars=2", "--format", "{{.Name}}", f"{at}/box").count("box") == 2
        assert out(agent, "search", "--limit", "1", "--format", "{{.Name}}", f"{at}/box") == "team/box"
        assert agent.client.images.search(f"{at}/team")[0]["description"] == "of ours"
    failed = agent.docker("search", f"{plain.address}/box", code=1).stderr
    assert f"the registry {plain.address} has no search" in failed
    assert (
        "outside the range of [1, 100]" in agent.docker("search", "--limit", "500", f"{at}/x", code=1).stderr
    )


def test_what_a_name_stands_for_is_told(
    agent: AgentUnderTest, plain: DebianRegistry, names: list[str]
) -> None:
    name = f"{plain.address}/told/box:1"
    names.append(name)
    out(agent, "tag", BUSYBOX, name)
    out(agent, "push", "-q", name)
    data = agent.client.images.get_registry_data(name)
    assert data.id == inspect(name)["Digest"] and data.has_platform("linux/amd64")
    with pytest.raises(docker.errors.NotFound, match="not found"):
        agent.client.images.get_registry_data(f"{plain.address}/told/nothing:1")


@pytest.mark.soak
def test_memory_does_not_grow_with_the_image(
    agent: AgentUnderTest, plain: DebianRegistry, names: list[str]
) -> None:
    """300 MB are compressed, pushed and pulled."""
    name = f"{plain.address}/large/box:1"
    names.append(name)
    out(agent, "run", "--name", "large", BUSYBOX, "dd", "if=/dev/urandom", "of=/large", "bs=1M", "count=300")
    out(agent, "commit", "large", name)
    Path(f"/proc/{agent.pid}/clear_refs").write_text("5")
    out(agent, "push", "-q", name)
    out(agent, "rmi", name)
    out(agent, "pull", "-q", name)
    lines = Path(f"/proc/{agent.pid}/status").read_text().splitlines()
    [most] = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    assert most < 100 << 10


def test_a_pull_ends_with_its_client(agent: AgentUnderTest, plain: DebianRegistry, names: list[str]) -> None:
    """Though nothing is to be told: the registry is silent."""
    name = f"{plain.address}/silent/box:1"
    layered(agent, os.urandom(100_000), name)
    out(agent, "push", "-q", name)
    out(agent, "rmi", name)
    layer = inspect(name)["Layers"][1]
    with registries.faults_before(plain.address, gate=threading.Event(), only=layer) as proxy:
        silent = f"{proxy.serving.address}/silent/box"
        names.append(f"{silent}:1")
        before = opened(agent)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(agent.socket))
            path = f"/v1.44/images/create?fromImage={silent}&tag=1"
            client.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
            assert proxy.serving.reached.wait(10)
            assert len(opened(agent)) > len(before)
        deadline = time.monotonic() + 10
        while len(now := opened(agent)) > len(before):
            assert time.monotonic() < deadline, sorted(now)
            time.sleep(0.05)
        proxy.serving.gate.set()
        out(agent, "pull", "-q", f"{silent}:1")


def test_a_pull_goes_on_after_the_daemon_was_killed(
    agent: AgentUnderTest, plain: DebianRegistry, names: list[str]
) -> None:
    name = f"{plain.address}/killed/box:1"
    layered(agent, os.urandom(3_000_000), name)
    out(agent, "push", "-q", name)
    out(agent, "rmi", name)
    layer = inspect(name)["Layers"][1]
    gate = {"gate": threading.Event(), "gate_after": 1_000_000, "only": layer}
    with registries.faults_before(plain.address, **gate) as proxy:
        pulled = f"{proxy.serving.address}/killed/box:1"
        names.append(pulled)
        with ThreadPoolExecutor() as pool:
            pulling = pool.submit(agent.docker, "pull", pulled, code=None)
            assert proxy.serving.reached.wait(10)
            partial = agent.root / "lib/partial"
            deadline = time.monotonic() + 60
            while not any(path.stat().st_size >= 500_000 for path in partial.iterdir()):
                assert time.monotonic() < deadline  # it has been sent, and not yet written
                time.sleep(0.01)
            agent.kill()
            assert pulling.result().returncode != 0
        proxy.serving.gate.set()
        agent.start()
        assert list((agent.root / "lib/incoming").iterdir()) == []
        proxy.serving.requests.clear()
        out(agent, "pull", "-q", pulled)
        [(_, _, headers)] = [asked for asked in proxy.serving.requests if layer in asked[1]]
        assert int(headers["range"].removeprefix("bytes=").rstrip("-")) >= 500_000
    assert out(agent, "run", "--rm", pulled, "wc", "-c", "/added") == "3000000 /added"


def opened(agent: AgentUnderTest) -> list[str]:
    """Connections and files of the daemon."""
    found = []
    for entry in Path(f"/proc/{agent.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(os.readlink(entry))
    return found


def test_another_platforms_image_can_be_passed_on_but_does_not_run(
    agent: AgentUnderTest, plain: DebianRegistry, names: list[str], tmp_path: Path
) -> None:
    name, foreign = f"{plain.address}/foreign/box:1", f"{plain.address}/foreign/box:s390x"
    names += [name, foreign]
    out(agent, "tag", BUSYBOX, name)
    out(agent, "push", "-q", name)
    layout = tmp_path / "dir"
    skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{layout}")
    document = json.loads((layout / "manifest.json").read_text())
    config = json.loads((layout / document["config"]["digest"][7:]).read_text())
    data = json.dumps({**config, "architecture": "s390x"}).encode()
    document["config"] |= {"digest": imagefiles.sha256(data), "size": len(data)}
    (layout / imagefiles.sha256(data)[7:]).write_bytes(data)
    (layout / "manifest.json").write_text(json.dumps(document))
    skopeo("copy", "--dest-tls-verify=false", f"dir:{layout}", f"docker://{foreign}")
    out(agent, "pull", "--platform", "linux/s390x", foreign)
    assert out(agent, "inspect", "-f", "{{.Architecture}}", foreign) == "s390x"
    failed = agent.docker("run", "--rm", foreign, "true", code=125).stderr
    assert f"image {foreign} is for linux/s390x, and this machine is linux/amd64" in failed
    moved = foreign.replace("/foreign/", "/moved/")
    names.append(moved)
    out(agent, "tag", foreign, moved)
    out(agent, "push", "-q", moved)
    assert inspect(moved)["Digest"] == inspect(foreign)["Digest"]
