"""Images from the controller to hosts that know no registry: only what is missing goes over, once."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support import busybox, imagefiles, isolation, registries
from tests.support.project import Project
from tests.support.registries import PASSWORD, USER, DebianRegistry
from tests.support.testhost import TestHost, TestNetwork

from hawse.images.store import ImageStore

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]

LARGE = 28 << 20


@pytest.fixture
def project(hawse: Project, hosts: TestNetwork) -> Iterator[Project]:
    """With no image here or there after each test."""
    yield hawse
    for image in store(hawse).images():
        store(hawse).remove(image.reference)
    hawse.run("-H", "all", "image", "prune", "-a", "-f")


def store(project: Project) -> ImageStore:
    return ImageStore(Path(project.environment["HAWSE_HOME"]) / "images")


def image_of(project: Project, name: str, *layers: bytes) -> str:
    """Held here under that name; gives its id."""
    held = store(project)
    diff_ids = [held.put(layer) for layer in layers]
    described = [
        {"mediaType": imagefiles.LAYER, "digest": digest, "size": len(layer)}
        for digest, layer in zip(diff_ids, layers, strict=True)
    ]
    return held.add([name], imagefiles.config(diff_ids, Cmd=["sh"]), described).variants[0].id


def noise(size: int) -> bytes:
    return imagefiles.tar(imagefiles.entry("noise", os.urandom(size)))


def sent(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Bytes by host, in MiB."""
    units = {"B": 1 / (1 << 20), "KiB": 1 / 1024, "MiB": 1.0}
    found = re.findall(r"^(\w+): .*, ([\d.]+) (\w+) sent$", done.stdout, re.MULTILINE)
    return {host: round(float(number) * units[unit]) for host, number, unit in found}


@contextmanager
def sending(project: Project, host: TestHost, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A command in the middle of sending something large to this host."""
    command = [sys.executable, "-m", "hawse", *words]
    with subprocess.Popen(
        command,
        cwd=project.directory,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        host.wait_for(lambda: partial(host) > 4 << 20, "some of the blob to come")
        yield process


def partial(host: TestHost) -> int:
    """Bytes of the largest blob that has come in part."""
    sizes = []
    for path in host.path("/var/lib/hawse/partial").glob("*"):
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:
            continue  # it is whole by now
    return max(sizes, default=0)


@pytest.fixture
def slow(hosts: TestNetwork) -> Iterator[TestHost]:
    """web1, whose link carries no more than 20 MB a second."""
    host = hosts.hosts[0]
    words = ("root", "tbf", "rate", "160mbit", "burst", "256k", "latency", "400ms")
    if subprocess.run(["tc", "qdisc", "add", "dev", host.link, *words]).returncode != 0:
        pytest.skip("this kernel has no tbf")
    yield host
    subprocess.run(["tc", "qdisc", "del", "dev", host.link, "root"], check=True)


SEND = ("-H", "web1", "image", "send", "large:1")


def test_a_host_gets_only_what_it_lacks(project: Project) -> None:
    base = noise(3 << 20)
    one = image_of(project, "one:1", base)
    two = image_of(project, "two:1", base, noise(1 << 20))
    first = project.run("-H", "web1,web2", "image", "send", "one:1")
    assert f"web1: one:1 is {one[:19]}" in first.stdout
    assert sent(first) == {"web1": 3, "web2": 3}
    assert sent(project.run("image", "send", "two:1", "web*")) == {"web1": 1, "web2": 1}
    again = project.run("-H", "all", "image", "send", "-f", "1", "two:1")
    assert sent(again) == {"web1": 0, "web2": 0, "db1": 4}
    seen = project.run("-H", "web1,db1", "image", "inspect", "-f", "{{.Id}}", "two:1").stdout
    assert seen.count(two) == 2 and "web1 | " in seen
    listed = json.loads(project.run("--json", "-H", "all", "images").stdout)
    assert {host: {image["Id"] for image in images} for host, images in listed.items()} == {
        "web1": {one, two},
        "web2": {one, two},
        "db1": {two},
    }
    removed = project.run("-H", "web1,db1", "image", "rm", "two:1").stdout
    assert removed.count("Untagged: two:1") == 2 and "two:1" in project.run("image", "ls").stdout


def test_a_killed_controller_goes_on_where_it_stopped(project: Project, slow: TestHost) -> None:
    identity = image_of(project, "large:1", noise(LARGE))
    with sending(project, slow, *SEND) as process:
        process.kill()
    slow.wait_for(lambda: not slow.pids("hawse-agent dial"), "the connection to end")
    there = partial(slow) >> 20
    assert there >= 4
    done = project.run(*SEND)
    assert sent(done) == {"web1": pytest.approx((LARGE >> 20) - there, abs=1)}
    assert identity[:19] in done.stdout and partial(slow) == 0


def test_ctrl_c_ends_it_and_what_came_is_kept(project: Project, slow: TestHost) -> None:
    image_of(project, "large:1", noise(LARGE))
    with sending(project, slow, *SEND) as process:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=5)
    assert process.returncode == 130 and "interrupted" in errors
    assert partial(slow) > 4 << 20
    project.run(*SEND)


def test_a_play_goes_on_sending_where_it_was_cut(project: Project, slow: TestHost) -> None:
    identity = image_of(project, "large:1", noise(LARGE))
    project.write(
        "large.yml", "- hosts: web1\n  gather_facts: false\n  tasks: [{image: {name: 'large:1'}}]\n"
    )
    with sending(project, slow, "play", "large.yml") as process:
        for pid in slow.pids("sshd: root@notty"):
            slow.kill(pid)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, output + errors
    assert (
        "1 changed" in output and identity in project.run("-H", "web1", "images", "-q", "--no-trunc").stdout
    )


@pytest.mark.parametrize("what", ["the connection", "the daemon"])
def test_what_is_cut_under_a_sender_goes_on_by_itself(project: Project, slow: TestHost, what: str) -> None:
    identity = image_of(project, "large:1", noise(LARGE))
    with sending(project, slow, *SEND) as process:
        for pid in slow.pids("hawse-agent: daemon" if what == "the daemon" else "sshd: root@notty"):
            slow.kill(pid)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    done = subprocess.CompletedProcess((), 0, output, errors)
    assert identity[:19] in output
    # Bytes that were on their way, in buffers of either side, are sent again.
    assert sent(done) == {"web1": pytest.approx(LARGE >> 20, abs=12)}


def test_several_controllers_send_a_blob_once(project: Project, slow: TestHost) -> None:
    image_of(project, "large:1", noise(LARGE))
    with sending(project, slow, *SEND) as first:
        second = project.run(*SEND)
        output, errors = first.communicate(timeout=60)
    assert first.returncode == 0, errors
    assert sent(second) == {"web1": 0}
    assert sent(subprocess.CompletedProcess((), 0, output, "")) == {"web1": LARGE >> 20}


def test_hosts_without_a_registry_are_served(project: Project, hosts: TestNetwork, tmp_path: Path) -> None:
    """The registry is on our loopback, where no host can reach it, and wants a password."""
    if not registries.available():
        pytest.skip("needs docker-registry and skopeo")
    with DebianRegistry(tmp_path / "registry", password=True) as registry:
        name = f"{registry.address}/team/box:1"
        box = busybox_archive(tmp_path)
        subprocess.run(
            ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"--dest-creds={USER}:{PASSWORD}"]
            + [f"oci-archive:{box}", f"docker://{name}"],
            check=True,
        )
        project.run("login", "-u", USER, "--password-stdin", registry.address, input=PASSWORD)
        assert "cannot reach the registry" in up(project, name, code=1)
        pulled = project.run("-H", "web*", "pull", name, code=1).stderr
        assert all(f"{host}: pull {name}: cannot reach the registry" in pulled for host in ("web1", "web2"))
        project.run("image", "pull", "-q", name)
        project.run("logout", registry.address)
    assert "4 changed" in up(project, name)
    names = project.run("-H", "web*", "ps", "--format", "{{.Image}}").stdout
    assert names.count(name) == 2
    project.run("down", "box", "web*")


def up(project: Project, image: str, *, code: int = 0) -> str:
    service = f"{{image: '{image}', command: [sleep, '1000'], stop_signal: SIGKILL, network_mode: none}}"
    project.write("box.yaml", f"name: box\nservices:\n  one: {service}\n")
    done = project.run("up", "box.yaml", "web*", code=code)
    return done.stdout + done.stderr


def busybox_archive(directory: Path) -> Path:
    """As an OCI layout in a tar."""
    busybox.make_layer(directory / "layer")
    with tarfile.open(directory / "root.tar", "w") as tar:
        tar.add(directory / "layer", ".")
    layer = (directory / "root.tar").read_bytes()
    config = imagefiles.config([imagefiles.sha256(layer)], Cmd=["sh"])
    manifest = imagefiles.manifest(config, [layer])
    index = {"schemaVersion": 2, "manifests": [imagefiles.descriptor(manifest, imagefiles.MANIFEST)]}
    blobs = {imagefiles.sha256(data).removeprefix("sha256:"): data for data in (layer, config, manifest)}
    entries = [imagefiles.entry(f"blobs/sha256/{name}", data) for name, data in blobs.items()]
    entries.append(imagefiles.entry("index.json", json.dumps(index).encode()))
    entries.append(imagefiles.entry("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'))
    path = directory / "box.tar"
    path.write_bytes(imagefiles.tar(*entries))
    return path
