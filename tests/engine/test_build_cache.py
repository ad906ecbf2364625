"""The cache of builds: what hits and what does not, how it is measured, pruned and shared."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
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

CACHED = " ---> Using cache\n"


@pytest.fixture
def project(agent: AgentUnderTest, tmp_path: Path) -> Iterator[Project]:
    directory = tmp_path / "context"
    directory.mkdir()
    project = Project(agent, directory)
    yield project
    project.clear()


def cached(project: Project, dockerfile: str, *words: str) -> list[bool]:
    """Of each step after FROM."""
    said = project.build(dockerfile, *words)
    return [CACHED in step for step in said.split("\nStep ")[2:]]


def events(project: Project, since: float) -> list[Any]:
    until = time.time()
    found = project.agent.client.api.events(since=since, until=until, decode=True)
    return [event["Action"] for event in found if event["Type"] == "container"]


def test_ten_cached_steps_start_no_container_and_give_the_same_image(project: Project) -> None:
    project.write({f"f{number}": str(number) for number in range(3)})
    dockerfile = (
        FROM + "RUN echo a > /a\nENV A=1\nWORKDIR /w\nCOPY f0 .\nRUN echo b > /b\nCOPY f1 f2 ./\nLABEL l=1\n"
        'RUN true\nUSER bob\nCMD ["true"]\n'
    )
    assert cached(project, dockerfile, "-t", "t") == 10 * [False]
    image = project.agent.client.images.get("t").id
    project.agent.restart()
    begun = time.time()
    assert cached(project, dockerfile, "-t", "u") == 10 * [True]
    assert events(project, begun) == []
    assert project.agent.client.images.get("u").id == image


def test_content_counts_and_times_do_not(project: Project) -> None:
    project.write({"d/f": "same", "run": "#!"})
    dockerfile = FROM + "COPY d /d\nCOPY run /run\nRUN true\n"
    assert cached(project, dockerfile) == [False] * 3
    for name in ("d/f", "run"):  # as a fresh clone would have them
        os.utime(project.directory / name, (1, 1))
    assert cached(project, dockerfile) == [True] * 3
    os.chmod(project.directory / "run", 0o755)
    assert cached(project, dockerfile) == [True, False, False]
    project.write({"d/f": "other"})
    assert cached(project, dockerfile)[0] is False


def test_a_setting_does_not_make_what_it_is_not_about_run_again(project: Project) -> None:
    assert cached(project, FROM + "LABEL v=1\nRUN echo > /a\nCOPY Dockerfile /d\n")[1] is False
    assert cached(project, FROM + "LABEL v=2\nRUN echo > /a\n") == [False, True]
    assert cached(project, FROM + "ENV v=2\nRUN echo > /a\n") == [False, False]
    assert cached(project, FROM + "USER bob\nRUN true\n") == [False, False]


def test_arguments_count_once_they_are_declared(project: Project) -> None:
    dockerfile = FROM + "RUN echo > /before\nARG X\nRUN echo > /after\n"
    cached(project, dockerfile, "--build-arg", "X=1")
    assert cached(project, dockerfile, "--build-arg", "X=2") == [True, True, False]
    assert cached(project, dockerfile, "--build-arg", "X=1", "--build-arg", "HTTP_PROXY=p") == [True] * 3


def test_no_cache_runs_again_and_counts_from_then_on(project: Project) -> None:
    dockerfile = FROM + "RUN cat /proc/sys/kernel/random/uuid > /u\nRUN cp /u /v\n"
    cached(project, dockerfile)
    assert cached(project, dockerfile, "--no-cache", "-t", "t") == [False, False]
    assert cached(project, dockerfile, "-t", "u") == [True, True]
    assert project.agent.client.images.get("t").id == project.agent.client.images.get("u").id
    one, other = project.run("t", "cat", "/u", "/v").split()
    assert one == other


def test_a_step_on_another_layer_is_another_step(project: Project) -> None:
    """What ran on the layer of before is not taken for one that came with --no-cache."""
    first = FROM + "RUN cat /proc/sys/kernel/random/uuid > /u\n"
    cached(project, first + "RUN cp /u /v\n")
    cached(project, first, "--no-cache")
    assert cached(project, first + "RUN cp /u /v\n", "-t", "t") == [True, False]
    one, other = project.run("t", "cat", "/u", "/v").split()
    assert one == other


def test_stages_are_found_by_what_is_in_them(project: Project) -> None:
    dockerfile = "FROM busybox:test AS a\nRUN echo same > /f\n" + FROM + "COPY --from=a /f /g\nRUN cat /g\n"
    cached(project, dockerfile)
    said = project.build(dockerfile)
    assert said.count(CACHED) == 3
    said = project.build(dockerfile.replace("echo same", "printf 'same\\n'"))
    assert said.count(CACHED) == 2  # another step, but the same file


def test_what_the_cache_holds_outlives_its_image_and_is_pruned(project: Project) -> None:
    layers = project.agent.root / "lib/layers"
    before = set(os.listdir(layers))
    project.build(FROM + "RUN echo > /a\nRUN echo > /b\n", "-t", "t")
    assert len(set(os.listdir(layers)) - before) == 2
    project.agent.client.images.remove("t")
    assert cached(project, FROM + "RUN echo > /a\n") == [True]
    usage = project.agent.client.df()["BuildCache"]
    assert sorted((one["Description"], one["UsageCount"], one["Shared"]) for one in usage) == [
        ("RUN echo > /a", 1, True),
        ("RUN echo > /b", 0, False),
    ]
    project.agent.client.images.prune()
    said = project.agent.docker("builder", "prune", "-f").stdout
    assert "Total reclaimed space: 0B" not in said
    assert set(os.listdir(layers)) == before
    assert project.agent.client.df()["BuildCache"] == []


def test_prune_keeps_what_was_used_last(project: Project) -> None:
    for number in range(3):
        project.build(FROM + f"RUN dd if=/dev/zero of=/f{number} bs=1k count=10 2>/dev/null\n", "-t", "t")
    project.agent.client.images.remove("t", force=True)
    project.agent.client.images.prune()
    api = project.agent.client.api
    size = api.df()["BuildCache"][0]["Size"]
    assert api.prune_builds(keep_storage=int(2.5 * size), all=True)["SpaceReclaimed"] == size
    assert [one["Description"][:26] for one in api.df()["BuildCache"]] == [
        f"RUN dd if=/dev/zero of=/f{number}" for number in (1, 2)
    ]
    assert api.prune_builds(filters={"until": "1h"}, all=True)["SpaceReclaimed"] == 0
    identity = api.df()["BuildCache"][0]["ID"]
    assert api.prune_builds(filters={"id": identity}, all=True)["SpaceReclaimed"] == size


def test_cache_mounts_are_measured_and_pruned(project: Project) -> None:
    project.build(
        FROM + "RUN --mount=type=cache,target=/c dd if=/dev/zero of=/c/f bs=1k count=100 2>/dev/null\n"
    )
    usage = [one for one in project.agent.client.df()["BuildCache"] if one["Type"] == "exec.cachemount"]
    assert [(one["Description"], one["Size"] > 100_000) for one in usage] == [("cache mount /c", True)]
    project.agent.docker("builder", "prune", "-f", "--filter", "type=exec.cachemount")
    assert os.listdir(project.agent.root / "lib/caches") == []
    assert len(project.agent.client.df()["BuildCache"]) == 1


def test_builds_side_by_side(project: Project) -> None:
    """Of the same file, while the cache is pruned and the base image is taken away."""
    dockerfile = FROM + "RUN sleep 0.2; echo a > /a\nCOPY Dockerfile /d\nRUN sleep 0.2; cat /a /d > /b\n"
    project.write({"Dockerfile": dockerfile})
    base = project.agent.client.images.get(BUSYBOX)
    base.tag("kept")
    ended = threading.Event()

    def disturb() -> None:
        while not ended.is_set():
            project.agent.client.api.prune_builds(all=True)

    thread = threading.Thread(target=disturb)
    thread.start()
    builds = [
        subprocess.Popen(
            ["docker", "build", "-q", "-t", f"t{number}", str(project.directory)],
            env=project.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    try:
        for one in builds:
            assert one.wait(60) == 0, one.stderr and one.stderr.read()
    finally:
        ended.set()
        thread.join()
    assert project.run("t2", "cat", "/b") == "a\n" + dockerfile


def test_the_base_may_go_while_a_build_runs(project: Project) -> None:
    project.agent.client.images.get(BUSYBOX).tag("base:1")
    project.build(FROM + "RUN echo > /x\n", "-t", "base:2")
    project.write({"Dockerfile": "FROM base:2\nRUN sleep 0.5\nRUN ls /x > /y\n"})
    build = subprocess.Popen(
        ["docker", "build", "-t", "t", str(project.directory)],
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert build.stdout is not None
    for line in build.stdout:
        if "Running in" in line:
            break
    project.agent.client.images.remove("base:2", force=True)
    project.agent.client.api.prune_builds(all=True)
    rest = build.stdout.read()
    assert build.wait(30) == 0, rest
    assert project.run("t", "cat", "/y") == "/x\n"


def test_an_image_from_elsewhere_is_a_cache(project: Project) -> None:
    """As on a host that has pulled what another one has built."""
    project.write({"f": "content"})
    dockerfile = (
        FROM + "ENV A=1\nCOPY f /f\nRUN cat /proc/sys/kernel/random/uuid > /u\nWORKDIR /w\nRUN true\n"
    )
    cached(project, dockerfile, "-t", "t")
    value = project.run("t", "cat", "/u")
    api = project.agent.client.api
    saved = b"".join(project.agent.client.images.get("t").save(named=True))
    project.agent.client.images.remove("t", force=True)
    api.prune_builds(all=True)
    project.agent.client.images.load(saved)
    assert cached(project, dockerfile, "--cache-from", "t", "-t", "u") == 5 * [True]
    assert project.run("u", "cat", "/u") == value
    api.prune_builds(all=True)
    project.write({"f": "other"})
    assert cached(project, dockerfile, "--cache-from", "t") == [True, False, False, False, False]
    assert "Not all images of --cache-from are on this host" in project.build(None, "--cache-from", "no:1")


def test_an_image_is_no_cache_of_what_its_history_does_not_tell(project: Project) -> None:
    project.write({"f": "one"})

    def dockerfile(word: str) -> str:
        mounted = "RUN --mount=type=bind,target=/c cat /c/f > /f\n"
        script = f"RUN <<EOF\n#!/bin/sh\necho {word} > /s\nEOF\n"
        return FROM + mounted + script

    project.build(dockerfile("one"), "-t", "t")
    project.write({"f": "two"})
    project.agent.client.api.prune_builds(all=True)
    assert cached(project, dockerfile("two"), "--cache-from", "t", "-t", "u") == [False, False]
    assert project.run("u", "cat", "/f", "/s") == "twotwo\n"
    chmod = FROM + "COPY --chmod=600 f /f\n"
    project.build(chmod, "-t", "t")
    assert cached(project, chmod.replace("600", "644"), "--cache-from", "t") == [False]


def test_without_a_cache_no_image_is_one_either(project: Project) -> None:
    dockerfile = FROM + "RUN true\n"
    project.build(dockerfile, "-t", "t")
    assert cached(project, dockerfile, "--no-cache", "--cache-from", "t") == [False]


def test_a_linked_copy_is_the_users_of_the_image_below(project: Project) -> None:
    project.write({"f": "f"})
    for uid in (77, 78):
        said = (
            f"RUN mkdir -p /etc && echo me:x:{uid}:{uid}::/: > /etc/passwd && echo me:x:{uid}: > /etc/group\n"
        )
        project.build(f"{FROM}{said}COPY --link --chown=me f /f\n", "-t", "t")
        assert project.run("t", "stat", "-c", "%u", "/f") == f"{uid}\n"


def test_a_proxys_password_is_written_down_nowhere(project: Project) -> None:
    proxy = "http://me:PaSsWoRd@127.0.0.1:1"
    said = project.build(FROM + "RUN echo $HTTP_PROXY\n", "--build-arg", f"HTTP_PROXY={proxy}", "-t", "t")
    assert f"{proxy}\n" in said
    found = subprocess.run(
        ["grep", "-rl", "--devices=skip", "PaSsWoRd", str(project.agent.root)], capture_output=True, text=True
    )
    assert found.stdout == ""


def test_an_interrupt_waits_for_no_registry(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        project.write({"Dockerfile": f"FROM 127.0.0.1:{silent.getsockname()[1]}/a\n"})
        building = subprocess.Popen(["docker", "build", str(project.directory)], env=project.environment)
        silent.accept()[0].close()  # it has no TLS
        with silent.accept()[0]:
            building.send_signal(signal.SIGINT)
            building.wait(20)
            project.nothing_is_left()
