"""RUN: isolation, mounts, secrets, what it leaves, and how it ends."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest
from tests.support.builds import FROM, Project

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker CLI"),
]

SECRET = b"swordfish-3c1a"
TIMEOUT = 30.0


@pytest.fixture
def project(agent: AgentUnderTest, tmp_path: Path) -> Iterator[Project]:
    directory = tmp_path / "context"
    directory.mkdir()
    project = Project(agent, directory)
    yield project
    project.clear()


def own_build(project: Project, dockerfile: str, secrets: dict[str, bytes], query: str = "t=t") -> str:
    """By our own endpoint, which takes secrets; the messages, one JSON object a line."""
    about = {"secrets": {name: base64.b64encode(value).decode() for name, value in secrets.items()}}
    api: Any = project.agent.client.api
    body = json.dumps(about).encode() + b"\n" + tarred({"Dockerfile": dockerfile.encode()})
    return str(api.post(f"{api.base_url}/hawse/v1/build?{query}", data=body).text)


def eventually(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def layers_of(project: Project, image: str = "t") -> list[set[str]]:
    """Names in each layer's tar, the base's first."""
    saved = io.BytesIO(b"".join(project.agent.client.images.get(image).save()))
    with tarfile.open(fileobj=saved) as archive:
        manifest = json.loads(archive.extractfile("manifest.json").read())  # type: ignore[union-attr]
        found = []
        for name in manifest[0]["Layers"]:
            with tarfile.open(fileobj=archive.extractfile(name)) as layer:
                found.append({member.name.strip("/").removeprefix("./") for member in layer} - {"."})
    return found


def test_a_step_is_confined_like_any_container(project: Project) -> None:
    said = project.build(
        FROM
        + "RUN grep -E 'CapEff|Seccomp:' /proc/self/status; cat /sys/fs/cgroup/memory/memory.limit_in_bytes "
        "/sys/fs/cgroup/memory.max 2>/dev/null; mount -t tmpfs x /mnt || echo refused\n",
        *("-m", "64m"),
    )
    assert "CapEff:\t00000000a80425fb" in said and "Seccomp:\t2" in said
    assert "67108864" in said and "refused" in said


def test_network_none(project: Project) -> None:
    assert "eth0" not in project.build(FROM + "RUN ls /sys/class/net\n", "--network=none")
    said = project.build(FROM + "RUN ls /sys/class/net\nRUN --network=none echo; ls /sys/class/net\n")
    assert said.count("eth0") == 1


def test_extra_hosts(project: Project) -> None:
    assert "10.9.8.7\tother" in project.build(FROM + "RUN cat /etc/hosts\n", "--add-host", "other:10.9.8.7")


def test_user_and_directory(project: Project) -> None:
    said = project.build(FROM + "WORKDIR /w\nUSER bob\nRUN echo $(id -un) in $PWD\n")
    assert "bob in /w" in said


def test_what_was_only_mounted_on_is_in_no_layer(project: Project) -> None:
    project.write({"f": "of the context"})
    said = project.build(
        FROM + "RUN --mount=type=cache,target=/a/cache --mount=type=tmpfs,target=/b/tmp "
        "--mount=target=/c/f,source=f echo x > /a/cache/y; cat /c/f; echo > /b/tmp/z; echo > /kept\n"
        "RUN --mount=type=cache,target=/a/cache cat /a/cache/y\n"
        "RUN rmdir /home/bob && true\n",
        *("-t", "t"),
    )
    assert "of the context" in said and "\nx\n" in said
    assert layers_of(project)[1:] == [{"kept"}, {"home", "home/.wh.bob"}]


def test_a_step_that_changes_nothing_makes_no_layer(project: Project) -> None:
    project.build(FROM + "RUN true\n", "-t", "t")
    assert len(layers_of(project)) == 1
    assert project.agent.client.api.history("t")[0]["CreatedBy"] == "/bin/sh -c true"


def test_what_is_written_to_a_volume_is_lost(project: Project) -> None:
    project.build(FROM + "RUN mkdir /d; echo a > /d/a\nVOLUME /d\nRUN echo b > /d/b\n", "-t", "t")
    assert layers_of(project)[1:] == [{"d", "d/a"}]
    assert project.agent.client.volumes.list() == []


def test_binds_of_stages_and_images(project: Project) -> None:
    project.write({"sub/inner": "inner"})
    said = project.build(
        "FROM busybox:test AS made\nRUN mkdir /out; echo one > /out/1\nRUN echo two > /out/2\n"
        + FROM
        + "RUN --mount=from=made,source=/out,target=/in cat /in/1 /in/2; echo > /in/1 || echo read-only\n"
        "RUN --mount=from=made,source=/out,target=/in,rw echo changed > /in/1; cat /in/1\n"
        "RUN --mount=from=made,source=/out/1,target=/one cat /one\n"
        "RUN --mount=from=busybox:test,target=/b ls /b/bin/busybox\n"
        "RUN --mount=source=sub,target=/s,rw echo > /s/new; ls /s; cat /s/inner\n"
        "RUN --mount=source=sub,target=/s ls /s\n",
    )
    assert "one\ntwo\n" in said and "read-only" in said and "changed" in said and "\none\n" in said
    assert "/b/bin/busybox" in said and "inner\nnew\ninner" in said
    assert said.count("new\n") == 1  # what is written to a bind is gone with the step


def test_caches_outlive_builds_and_can_be_locked_and_private(project: Project) -> None:
    mount = "--mount=type=cache,id=c,target=/c,uid=1000,mode=0700"
    project.build(FROM + f"RUN {mount} echo kept > /c/f\n")
    assert "1000 700" in project.build(FROM + f"RUN {mount} stat -c '%u %a' /c; cat /c/f\n")
    project.agent.restart()
    assert "kept" in project.build(FROM + f"RUN {mount} echo again; cat /c/f\n")
    filled = FROM + "RUN --mount=type=cache,id=d,from=busybox:test,source=/etc,target=/d cat /d/passwd\n"
    assert "bob" in project.build(filled)


def test_locked_caches_are_used_one_after_the_other(project: Project) -> None:
    """Each build takes the file away and puts it back: two at a time would miss it."""
    script = "test ! -e /c/busy && touch /c/busy && sleep 0.3 && rm /c/busy"
    for number, sharing in ((1, "locked"), (2, "private")):
        builds = [
            subprocess.Popen(
                ["docker", "build", "-"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=project.environment,
            )
            for _ in range(2)
        ]
        for index, one in enumerate(builds):
            run = f"RUN --mount=type=cache,id=l{number},sharing={sharing},target=/c {script} # {index}\n"
            assert one.stdin is not None
            one.stdin.write((FROM + run).encode())
            one.stdin.close()
        assert [one.wait(TIMEOUT) for one in builds] == [0, 0]


def test_secrets_are_seen_by_their_step_alone(project: Project) -> None:
    said = own_build(
        project,
        FROM + "RUN --mount=type=secret,id=s --mount=type=secret,id=s,env=TOKEN,target=/t,mode=0444 "
        "stat -c '%a %u' /run/secrets/s /t; sha256sum /run/secrets/s; echo -n $TOKEN | sha256sum; "
        "grep -o ' /t [a-z]*' /proc/self/mounts\n"
        "RUN ls /run/secrets /t; echo ${TOKEN:-unset}\n"
        "RUN --mount=type=secret,id=other ls /run/secrets/other || echo not given\n",
        {"s": SECRET},
    )
    assert "400 0\\n444 0" in said and said.count(__import__("hashlib").sha256(SECRET).hexdigest()) == 2
    assert "unset" in said and "not given" in said and "aux" in said
    assert layers_of(project)[1:] == []
    assert_nowhere(project, SECRET)


def assert_nowhere(project: Project, secret: bytes) -> None:
    """Not in any file of the instance, the state among them, nor in the image."""
    for form in (secret, base64.b64encode(secret)):
        found = subprocess.run(
            ["grep", "-rla", form.decode(), str(project.agent.root)], capture_output=True, text=True
        )
        assert found.stdout == ""


def test_a_secret_that_is_required_is_asked_for(project: Project) -> None:
    said = own_build(project, FROM + "RUN --mount=type=secret,id=s,required cat /run/secrets/s\n", {})
    assert "Dockerfile:2: secret s is required, and was not given" in said


def test_while_a_step_runs_its_secret_lies_in_memory(project: Project) -> None:
    thread = threading.Thread(
        target=own_build,
        args=(project, FROM + "RUN --mount=type=secret,id=s,env=T sleep 1000\n", {"s": SECRET}, "buildid=b"),
    )
    thread.start()
    eventually(lambda: running(project))
    assert_nowhere(project, SECRET)
    places = list(Path("/dev/shm").glob("hawse-secrets*/secret"))
    places += list((project.agent.root / "run").glob("hawse-secrets*/secret"))
    assert [place.read_bytes() for place in places] == [SECRET]
    api: Any = project.agent.client.api
    assert api.post(f"{api.base_url}/v1.47/build/cancel?id=b").status_code == 204
    thread.join(TIMEOUT)
    assert not any(place.parent.exists() for place in places) and running(project) == []


def running(project: Project) -> list[str]:
    """Ids of containers that have a supervisor, those of builds among them."""
    return os.listdir(project.agent.root / "run/shims")


def test_a_failing_step_names_its_place_and_leaves_nothing(project: Project) -> None:
    said = project.build(FROM + "RUN echo partial > /f\n\nRUN echo said && \\\n  exit 42\n", code=42)
    assert "said\n" in said
    assert (
        "The command '/bin/sh -c echo said &&   exit 42' returned a non-zero code: 42 (Dockerfile:4)" in said
    )
    assert "(Dockerfile:2)" in project.build(FROM + 'RUN ["/nothing"]\n', code=127)
    assert os.listdir(project.agent.root / "lib/containers") == [] == running(project)
    project.nothing_is_left()


def test_a_step_is_in_no_list(project: Project) -> None:
    build = begin(project, FROM + "RUN echo begun; sleep 1000\n")
    try:
        wait_for(build, "begun")
        (container,) = running(project)
        (base,) = project.agent.client.images.list()
        assert base.tags == [BUSYBOX]  # the step begins with it, and takes nothing from it
        assert project.agent.client.containers.list(all=True) == []
        assert project.agent.client.containers.prune()["ContainersDeleted"] is None
        assert project.agent.client.api.inspect_container(container)["State"]["Running"]
    finally:
        build.terminate()
        build.wait()
    eventually(lambda: not running(project))


def begin(project: Project, dockerfile: str) -> subprocess.Popen[str]:
    project.write({"Dockerfile": dockerfile})
    return subprocess.Popen(
        ["docker", "build", str(project.directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=project.environment,
    )


def wait_for(build: subprocess.Popen[str], line: str) -> None:
    assert build.stdout is not None
    for said in build.stdout:
        if said.strip() == line:
            return
    raise AssertionError(f"the build ended without {line}")


def test_output_comes_while_the_step_runs_and_a_client_that_goes_ends_it(project: Project) -> None:
    build = begin(project, FROM + "RUN echo begun; trap '' TERM; sleep 1000\n")
    wait_for(build, "begun")
    build.kill()
    build.wait()
    project.nothing_is_left()


def test_a_daemon_that_is_killed_leaves_nothing_that_the_next_does_not_sweep(project: Project) -> None:
    build = begin(project, FROM + "RUN echo kept > /f\nRUN echo begun; sleep 1000\n")
    wait_for(build, "begun")
    (container,) = running(project)
    project.agent.kill()
    assert build.wait(TIMEOUT) != 0
    assert running(project) == [container]
    project.agent.start()
    assert running(project) == [] == os.listdir(project.agent.root / "lib/containers")
    assert os.listdir(project.agent.root / "lib/incoming") == []
    assert "Successfully built" in project.build(FROM + "RUN echo kept > /f\n")
    assert project.agent.client.images.get(BUSYBOX)


def test_a_daemon_that_leaves_ends_its_builds(project: Project) -> None:
    build = begin(project, FROM + "RUN echo kept > /f\nRUN echo begun; sleep 1000\n")
    wait_for(build, "begun")
    project.agent.stop()
    assert build.wait(TIMEOUT) != 0
    assert running(project) == [] == os.listdir(project.agent.root / "lib/containers")
    project.agent.start()
    assert "Using cache" in project.build(FROM + "RUN echo kept > /f\n")


def test_the_hosts_network_is_not_a_files_to_give(project: Project) -> None:
    dockerfile = FROM + "RUN --network=host readlink /proc/self/ns/net\n"
    for words in ((), ("--network", "none")):
        said = project.build(dockerfile, *words, code=1)
        assert "Dockerfile:2: RUN --network=host: a file alone cannot give a step the host's network" in said
    assert os.readlink("/proc/self/ns/net") in project.build(dockerfile, "--network", "host")


def test_a_network_of_its_own(project: Project) -> None:
    network = project.agent.client.networks.create("of-build")
    try:
        said = project.build(FROM + "RUN cat /etc/resolv.conf\n", "--network", "of-build")
        assert "nameserver 127.0.0.11" in said
        assert "Dockerfile:2: network nowhere not found" in project.build(None, "--network=nowhere", code=1)
    finally:
        network.remove()


def test_a_step_that_says_much_waits_for_its_client(project: Project) -> None:
    """A client that does not read costs no memory, and is let go when it hangs up."""
    context = tarred({"Dockerfile": FROM.encode() + b"RUN yes | head -c 1000000000\n"})
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(project.agent.socket))
        head = f"POST /v1.47/build HTTP/1.1\r\nHost: x\r\nContent-Length: {len(context)}\r\n\r\n"
        client.sendall(head.encode() + context)
        eventually(lambda: running(project))
        time.sleep(1.0)  # in which it could have said much of it
        assert running(project)
        status = Path(f"/proc/{project.agent.pid}/status").read_text()
        assert int(status.partition("VmRSS:")[2].split()[0]) < 150_000
    project.nothing_is_left()


def tarred(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()
