"""Images made to lead the engine out of the container, or to break it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError
from tests.support import busybox, isolation
from tests.support.agent import AgentUnderTest
from tests.support.imagefiles import config, directory, docker_archive, entry, sha256, symlink, tar

SECRET = "what only the host knows"
BUG = re.compile(
    r"\b(Type|Value|Key|Attribute|Index|Name|Assertion|Overflow|Recursion|Memory|Unicode\w*)Error\b"
)
"""Nobody has thought of it: it is not refused, something broke."""


@pytest.fixture(scope="module")
def canary() -> Iterator[Path]:
    """A directory of the host that every link leads to."""
    session = isolation.current()
    assert session is not None
    path = session.directory / "canary"
    path.mkdir()
    (path / "secret").write_text(SECRET)
    before = {name: name.stat() for name in (path, path / "secret")}
    yield path
    assert {name.name for name in path.iterdir()} == {"secret"}
    assert (path / "secret").read_text() == SECRET
    assert {name: name.stat().st_ctime_ns for name in before} == {
        name: status.st_ctime_ns for name, status in before.items()
    }


class Images:
    """Loads images of one static program and a layer of what they are made for."""

    def __init__(self, agent: AgentUnderTest) -> None:
        self._agent = agent
        self._program = tar(entry("busybox", busybox.BUSYBOX.read_bytes(), mode=0o755))
        self._number = 0

    def load(self, *entries: Any, **settings: Any) -> str:
        self._number += 1
        name = f"hostile:{self._number}"
        layers = [self._program, tar(*entries)] if entries else [self._program]
        described = config([sha256(layer) for layer in layers], **settings)
        self._agent.client.images.load(docker_archive([(described, layers, [name])]))
        return name


@pytest.fixture
def images(agent: AgentUnderTest) -> Iterator[Images]:
    yield Images(agent)
    for container in agent.client.containers.list(all=True):
        container.remove(force=True, v=True)
    for image in agent.client.images.list("hostile"):
        agent.client.images.remove(image.id, force=True)


def run(agent: AgentUnderTest, image: str, *words: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
    """Exit code and all output of docker run; 125 is a refusal."""
    done = agent.docker("run", "--rm", "--network", "none", *options, image, *words, code=None)
    output = done.stdout + done.stderr
    assert not BUG.search(output), output
    assert SECRET not in output
    return done.returncode, output


def ways_out(canary: Path) -> Mapping[str, str]:
    return {
        "absolute": str(canary),
        "climbing": f"../../../../../../..{canary}",
        "through the root of a process": f"/proc/1/root{canary}",
        "through our own root": f"/proc/self/root/../../../..{canary}",
    }


WAYS = tuple(ways_out(Path("/")))


@pytest.mark.parametrize("way", WAYS)
def test_a_link_in_place_of_a_kernel_file_system(
    agent: AgentUnderTest, images: Images, canary: Path, way: str
) -> None:
    """CVE-2019-19921, CVE-2023-27561, CVE-2026-41579."""
    for name in ("dev", "proc", "sys"):
        image = images.load(symlink(name, ways_out(canary)[way]))
        code, output = run(agent, image, "/busybox", "true")
        assert (code, f"/{name} of the image is not a directory" in output) == (125, True), output


@pytest.mark.parametrize("way", WAYS)
def test_links_in_place_of_directories(agent: AgentUnderTest, images: Images, canary: Path, way: str) -> None:
    out = ways_out(canary)[way]
    image = images.load(*(symlink(name, out) for name in ("etc", "bin", "tmp", "run", "vol", "work")))
    options = ("-v", "/vol", "-w", "/work", "--tmpfs", "/tmp", "--tmpfs", "/run/x")
    code, output = run(agent, image, "/busybox", "find", "/", "-xdev", options=options)
    if way.startswith("through"):
        assert code == 125, output  # who would follow it, leaves the container
    else:
        assert code == 0 and "/secret" not in output, output


@pytest.mark.parametrize("way", WAYS)
def test_links_in_place_of_files(agent: AgentUnderTest, images: Images, canary: Path, way: str) -> None:
    out = f"{ways_out(canary)[way]}/secret"
    for name in ("hosts", "hostname", "resolv.conf"):
        image = images.load(directory("etc"), symlink(f"etc/{name}", out))
        code, output = run(agent, image, "/busybox", "cat", f"/etc/{name}")
        assert code == (125 if way.startswith("through") else 0), output


@pytest.mark.parametrize("way", WAYS)
def test_links_below_dev_and_a_terminal(
    agent: AgentUnderTest, images: Images, canary: Path, way: str
) -> None:
    """CVE-2025-52565: /dev/console. What an image has there lies under our own /dev."""
    out = ways_out(canary)[way]
    names = ("console", "pts", "shm", "ptmx", "null", "mqueue")
    image = images.load(directory("dev"), *(symlink(f"dev/{name}", out) for name in names))
    code, output = run(agent, image, "/busybox", "ls", "-l", "/dev", options=("-t",))
    assert code == 0 and str(canary) not in output, output


@pytest.mark.parametrize("way", WAYS)
def test_a_volume_is_not_filled_from_outside(
    agent: AgentUnderTest, images: Images, canary: Path, way: str
) -> None:
    """What fills it is what the image itself has at that place, if the link leads to one."""
    out = ways_out(canary)[way]
    own = str(canary).strip("/")
    filled = images.load(directory("vol"), entry("vol/of the image", b"x"))
    image = images.load(symlink("vol", out), entry(f"{own}/of the image", b"x"))
    found = {}
    for name, wanted in (("plain", filled), ("linked", image)):
        code, _output = run(agent, wanted, "/busybox", "true", options=("-v", f"{name}:/vol"))
        volume = Path(agent.client.volumes.get(name).attrs["Mountpoint"])
        found[name] = code, sorted(path.name for path in volume.iterdir())
    assert found["plain"] == (0, ["of the image"])
    assert found["linked"] == ((125, []) if way.startswith("through") else (0, ["of the image"]))


def test_descriptors_of_ours_as_working_directory(agent: AgentUnderTest, images: Images) -> None:
    """CVE-2024-21626, for the first process and for those executed beside it."""
    container = agent.client.containers.run("busybox:test", ["sleep", "1000"], detach=True)
    magic = ["/proc/self/cwd", "/proc/1/root", "/proc/self/task/../fd/9"]
    for path in (*magic, *(f"/proc/self/fd/{number}" for number in range(3, 40))):
        code, output = container.exec_run(["ls"], workdir=path)
        assert code in (126, 127) and b"chdir to cwd" in output, (path, output)
    for path in (*magic[1:], "/proc/self/fd/7", "/proc/self/fd/9/../../.."):
        with pytest.raises(APIError, match="make the working directory"):
            agent.client.containers.run("busybox:test", ["ls"], working_dir=path, remove=True)
    image = images.load(WorkingDir="/proc/self/fd/7/../../../..")
    assert run(agent, image, "/busybox", "ls")[0] == 125


BOB = "bob:x:1000:1000::/home/bob:/bin/sh\n"


WHO: tuple[tuple[Any, str, int], ...] = (
    (entry("etc/passwd", BOB.encode()), "bob", 0),
    (entry("etc/passwd", b"#" * (5 << 20)), "bob", 125),
    (entry("etc/passwd", b"\n" * (5 << 20) + BOB.encode()), "bob", 125),
    (entry("etc/passwd", b"x" * (2 << 20) + b"\n" + BOB.encode()), "bob", 0),
    (entry("etc/passwd", bytes(range(256)) * 100 + b"\n" + BOB.encode()), "bob", 0),
    (entry("etc/passwd", b"bob:x:-1:-1::/:/bin/sh\n"), "bob", 125),
    (entry("etc/passwd", b"bob:x:4294967295:0::/:/bin/sh\n"), "bob", 125),
    (entry("etc/passwd", b"bob:x:0:4294967295::/:/bin/sh\n"), "bob", 125),
    (entry("etc/passwd", b"bob:x:" + b"9" * 5000 + b":0::/:/bin/sh\n"), "bob", 125),
    (entry("etc/passwd", "bob:x:\u0661:\u0661::/:/bin/sh\n".encode()), "bob", 125),
    (entry("etc/passwd", b"bob\nbob:\nbob:x\nbob:x:1\n:::::::::\n" + BOB.encode()), "bob", 0),
    (symlink("etc/passwd", "/dev/zero"), "bob", 125),
    (symlink("etc/passwd", "/proc/self/fd/0"), "bob", 125),
    (symlink("etc/passwd", "passwd"), "bob", 125),
    (symlink("etc/passwd", "/proc/self/mem"), "bob", 125),
    (entry("etc/passwd", None, type=b"6", mode=0o644), "bob", 125),
    (directory("etc/passwd"), "bob", 125),
    (entry("etc/passwd", BOB.encode()), "-1", 125),
    (entry("etc/passwd", BOB.encode()), "4294967295", 125),
    (entry("etc/passwd", BOB.encode()), "9" * 5000, 125),
    (entry("etc/passwd", BOB.encode()), "bob:4294967295", 125),
    (entry("etc/passwd", BOB.encode()), "bob:nobody", 125),
    (entry("etc/group", b"g:x:4294967295:bob\n"), "0:g", 125),
    (entry("etc/group", b"g" * (5 << 20)), "0:g", 125),
    (symlink("etc/group", "/dev/random"), "0:g", 125),
)


def test_who_the_user_is(agent: AgentUnderTest, images: Images) -> None:
    """Files of an image that are huge, binary, endless, no files at all, or say what cannot be."""
    for file, user, expected in WHO:
        image = images.load(directory("etc"), file)
        code, output = run(agent, image, "/busybox", "id", "-u", options=("-u", user, "-m", "64m"))
        case = (file[0].name, file[0].linkname, file[1][:50], user[:50])
        assert code == expected and (code or output.startswith("1000\n")), (case, output)


CONFIGURATIONS: tuple[dict[str, Any], ...] = (
    {"User": "a:b:c:d"},
    {"User": "../../etc/passwd"},
    {"User": "\0"},
    {"User": 7},
    {"User": ["root"]},
    {"Env": ["WITHOUT", "=x", "A\0=B", "A=B\0C"]},
    {"Env": {"A": "B"}},
    {"Env": [1, None]},
    {"Env": ["A=" + "x" * (1 << 20)]},
    {"Env": ["A=\ud800"]},
    {"Cmd": ["/busybox", "\ud800"]},
    {"User": "\ud800"},
    {"WorkingDir": "/\ud800"},
    {"Volumes": {"/\ud800": {}}},
    {"Labels": {"a": "\ud800"}},
    {"Cmd": [""]},
    {"Cmd": ["\0"]},
    {"Cmd": "/busybox true"},
    {"Entrypoint": [1]},
    {"Entrypoint": {}},
    {"WorkingDir": "relative"},
    {"WorkingDir": "/../../.."},
    {"WorkingDir": "/\0"},
    {"WorkingDir": "/" + "d" * 5000},
    {"WorkingDir": "/busybox"},
    {"Volumes": {"/": {}}},
    {"Volumes": {"": {}}},
    {"Volumes": {"/proc": {}}},
    {"Volumes": {"/proc/self": {}}},
    {"Volumes": {"/../../..": {}}},
    {"Volumes": {"/dev": {}, "/sys": {}, "/dev/shm": {}, "/dev/pts": {}}},
    {"Volumes": {"relative": {}}},
    {"Volumes": ["/x"]},
    {"Volumes": {"/a\0b": {}}},
    {"ExposedPorts": {"99999/tcp": {}}},
    {"ExposedPorts": {"x/y": {}}},
    {"ExposedPorts": {"-1": {}}},
    {"ExposedPorts": ["80"]},
    {"Healthcheck": {"Test": ["CMD"], "Interval": -5}},
    {"Healthcheck": {"Test": "true"}},
    {"Healthcheck": {"Test": ["NO"]}},
    {"Healthcheck": {"Test": ["CMD", "\0"], "Interval": 1}},
    {"StopSignal": "SIGNOPE"},
    {"StopSignal": 99},
    {"StopTimeout": -1},
    {"Labels": ["x"]},
    {"Labels": {"a": None, "b": {}}},
    {"Shell": {}},
    {"OnBuild": 7},
)


def test_a_hostile_configuration_is_refused_or_harmless(agent: AgentUnderTest, images: Images) -> None:
    outcomes = {"refused": 0, "harmless": 0}
    for settings in CONFIGURATIONS:
        try:
            image = images.load(**{"Cmd": ["/busybox", "true"], **settings})
            container = agent.client.containers.create(image, network_mode="none")
            container.start()
            container.wait(timeout=60)
            outcomes["harmless"] += 1
        except APIError as error:
            said = str(error.explanation)
            assert said and not BUG.search(said), (repr(settings)[:100], said)
            outcomes["refused"] += 1
        assert agent.client.ping() and agent.client.images.list() is not None
    assert min(outcomes.values()) > 10, outcomes
