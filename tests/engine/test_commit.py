"""`docker commit`, by Docker's own clients: what the image has, and what becomes of the container."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError
from docker.models.containers import Container
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker CLI"),
]


@pytest.fixture(autouse=True)
def _without_images(agent: AgentUnderTest) -> Iterator[None]:
    yield
    for container in agent.client.containers.list(all=True):
        container.remove(force=True, v=True)
    for image in agent.client.images.list():
        if BUSYBOX not in image.tags:
            agent.client.images.remove(image.id, force=True)
    assert len(list(layers(agent))) == 1 and not os.listdir(agent.root / "lib/incoming")


def layers(agent: AgentUnderTest) -> Iterator[Path]:
    return (agent.root / "lib/layers").iterdir()


def made(agent: AgentUnderTest, script: str, **options: Any) -> Container:
    """A container that has run this."""
    container = agent.client.containers.create(BUSYBOX, ["sh", "-ec", script], **options)
    container.start()
    assert container.wait()["StatusCode"] == 0, container.logs()
    return container


def said(agent: AgentUnderTest, image: str, script: str) -> str:
    return agent.docker("run", "--rm", "--network", "none", image, "sh", "-c", script).stdout


def test_what_was_written_is_in_the_image(agent: AgentUnderTest) -> None:
    container = made(
        agent,
        """
        echo new > /new; echo more >> /etc/passwd; rm /etc/group; rm -r /home; mkdir /home; touch /home/x
        chown 1000:10 /new; chmod 4750 /new; ln -s new /link; ln /new /hard; mkfifo /fifo; mkdir -m 1777 /deep
        echo in > /vol/in; echo in > /mem/in
        """,
        volumes=["/vol"],
        tmpfs={"/mem": ""},
    )
    image = agent.docker("commit", container.id, "made:1").stdout.strip()
    assert image.startswith("sha256:") and agent.client.images.get("made:1").id == image
    told = said(
        agent,
        "made:1",
        "cat /new; tail -n1 /etc/passwd; ls /etc/group; ls /home /vol /mem; stat -c '%u:%g %a %h' /new; "
        "readlink /link; stat -c %F /fifo; stat -c %a /deep",
    )
    assert told.splitlines() == [
        *("new", "more", "/home:", "x", "", "/mem:", "", "/vol:"),
        *("1000:10 4750 2", "new", "fifo", "1777"),
    ]
    assert [change["Path"] for change in agent.client.containers.get(container.id).diff()] != []
    agent.client.containers.get(container.id).remove(v=True)
    assert said(agent, "made:1", "cat /new") == "new\n", "the layer is the image's"


def test_options_and_history(agent: AgentUnderTest) -> None:
    container = made(agent, "touch /x")
    changes = [
        *("CMD echo hi", 'ENTRYPOINT ["/bin/sh", "-c"]', "ENV A=1 B='two words'", "ENV OLD style value"),
        *("EXPOSE 80 53/udp", 'LABEL a=1 b.c="x y"', "ONBUILD RUN true", "USER bob", "VOLUME /data /more"),
        *("WORKDIR /srv", "WORKDIR app", "STOPSIGNAL SIGINT", 'SHELL ["/bin/ash", "-c"]'),
        "HEALTHCHECK --interval=1m30s --retries=2 CMD true",
    ]
    words = [word for change in changes for word in ("-c", change)]
    agent.docker("commit", "-m", "why", "-a", "Me <me@example>", *words, container.id, "made")
    config = agent.client.images.get("made").attrs["Config"]
    assert config == {
        "Cmd": ["/bin/sh", "-c", "echo hi"],
        "Entrypoint": ["/bin/sh", "-c"],
        "Env": [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            *("A=1", "B=two words", "OLD=style value"),
        ],
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 90_000_000_000, "Retries": 2},
        "Labels": {"a": "1", "b.c": "x y"},
        "OnBuild": ["RUN true"],
        "Shell": ["/bin/ash", "-c"],
        "StopSignal": "SIGINT",
        "User": "bob",
        "Volumes": {"/data": {}, "/more": {}},
        "WorkingDir": "/srv/app",
    }
    attrs = agent.client.images.get("made").attrs
    assert (attrs["Author"], attrs["Comment"]) == ("Me <me@example>", "why")
    assert attrs["Parent"] == agent.client.images.get(BUSYBOX).id
    [step, *before] = agent.client.images.get("made").history()
    assert (step["Comment"], step["CreatedBy"], step["Tags"]) == ("why", "sh -ec touch /x", ["made:latest"])
    assert len(before) == len(agent.client.images.get(BUSYBOX).history())
    for change, text in (
        ("FROM x", "FROM is not a valid change command"),
        ("CMD", "an instruction and its value"),
        ("HEALTHCHECK --interval=soon CMD x", "'soon' is not a time"),
        ('SHELL "x"', "not a JSON array"),
    ):
        assert text in agent.docker("commit", "-c", change, container.id, code=1).stderr


def test_the_configuration_is_the_containers(agent: AgentUnderTest) -> None:
    container = made(
        agent,
        "true",
        environment={"A": "1"},
        user="bob",
        working_dir="/tmp",
        labels={"own": "1"},
        ports={"80/tcp": None},
        volumes=["/vol"],
        stop_signal="SIGINT",
        healthcheck={"test": ["CMD", "true"]},
        hostname="own",
        network_mode="bridge",
    )
    image = container.commit(
        repository="made",
        tag="2",
        message="m",
        author="a",
        conf={"Env": ["A=2", "C=3"], "Labels": {"b": "2"}},
    )
    config = image.attrs["Config"]
    assert config["Env"][:2] == ["A=2", "C=3"] and config["Env"][2].startswith("PATH=")
    assert config["Labels"] == {"b": "2", "own": "1"}
    assert (config["User"], config["WorkingDir"], config["StopSignal"]) == ("bob", "/tmp", "SIGINT")
    assert config["Volumes"] == {"/vol": {}} and config["ExposedPorts"] == {"80/tcp": {}}
    assert config["Healthcheck"]["Test"] == ["CMD", "true"] and "Hostname" not in config
    assert config["Cmd"] == ["sh", "-ec", "true"]
    with pytest.raises(APIError) as refused:
        container.commit(conf={"Cmd": "no list"})
    assert refused.value.status_code == 400 and "Cmd" in str(refused.value.explanation)


def test_nothing_written_is_no_layer(agent: AgentUnderTest) -> None:
    """As with Docker: a step without a layer, the same files."""
    container = agent.client.containers.create(BUSYBOX, ["true"])
    image = container.commit(changes="ENV A=1")
    base = agent.client.images.get(BUSYBOX)
    assert image.attrs["RootFS"] == base.attrs["RootFS"] and image.id != base.id
    assert image.tags == [] and image.history()[0]["Size"] == 0
    assert "A=1" in image.attrs["Config"]["Env"]
    listed = agent.docker("images", "--filter", "dangling=true", "-q", "--no-trunc").stdout.split()
    assert listed == [image.id]


def test_what_runs_is_paused_meanwhile_and_goes_on(agent: AgentUnderTest) -> None:
    script = "touch /b; while :; do echo >> /a; echo >> /b; done"
    container = agent.client.containers.run(BUSYBOX, ["sh", "-c", script], detach=True)
    before = time.time()
    for _ in range(3):
        image = container.commit()
        one, other = said(agent, image.id, "cat /a | wc -l; cat /b | wc -l").split()
        assert 0 <= int(one) - int(other) <= 1, "it was read at one moment"
    container.reload()
    assert container.status == "running"
    agent.docker("commit", "--pause=false", container.id, "unpaused")
    agent.docker("commit", container.id, "paused")
    container.pause()
    container.commit()
    container.reload()
    assert container.status == "paused", "whoever has paused it decides"
    container.kill()
    told = [
        event["Action"]
        for event in agent.client.events(decode=True, since=before, until=time.time() + 0.1)
        if event["Action"] in ("pause", "unpause", "commit", "tag")
    ]
    assert told == [
        *["pause", "unpause", "commit"] * 3,
        *("tag", "commit"),
        *("pause", "unpause", "tag", "commit"),
        *("pause", "commit"),
    ]


def test_a_removed_name_is_somebody_elses(agent: AgentUnderTest) -> None:
    """The name moves on, and what had it stays without one."""
    container = made(agent, "touch /x")
    first = container.commit("made")
    second = container.commit("made", message="again")
    assert first.id != second.id
    assert agent.client.images.get("made").id == second.id
    assert agent.client.images.get(first.id).tags == []
    rows = agent.docker("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}", "--no-trunc").stdout
    assert f"<none>:<none> {first.id}" in rows and f"made:latest {second.id}" in rows
    pruned = agent.client.images.prune()
    assert [entry["Deleted"] for entry in pruned["ImagesDeleted"]] == [first.id]
    assert pruned["SpaceReclaimed"] == 0, "the other one has the same layer"


@pytest.mark.parametrize("name", ["UPPER", "a:b:c", "made@sha256:" + "0" * 64])
def test_a_name_that_cannot_be(agent: AgentUnderTest, name: str) -> None:
    container = agent.client.containers.create(BUSYBOX, ["true"])
    assert agent.docker("commit", container.id, name, code=None).returncode != 0
    assert len(agent.client.images.list()) == 1


def test_no_such_container(agent: AgentUnderTest) -> None:
    assert "No such container: nobody" in agent.docker("commit", "nobody", code=1).stderr
    with pytest.raises(APIError, match="expected a container's name or id"):
        agent.client.api._result(agent.client.api._post(agent.client.api._url("/commit")))


def test_a_file_that_no_layer_can_hold(agent: AgentUnderTest) -> None:
    container = made(agent, "touch /etc/.wh.passwd")
    assert "/etc/.wh.passwd cannot be in a layer" in agent.docker("commit", container.id, code=1).stderr


def test_saved_and_loaded_by_others(agent: AgentUnderTest, tmp_path: Path) -> None:
    """skopeo reads what was committed, and it comes back as the same image."""
    if shutil.which("skopeo") is None:
        pytest.skip("needs skopeo")
    image = made(agent, "touch /x; rm /etc/group").commit("made")
    archive = tmp_path / "made.tar"
    agent.docker("save", "-o", str(archive), "made")
    done = subprocess.run(
        ["skopeo", "inspect", "--config", f"docker-archive:{archive}"], check=True, capture_output=True
    )
    assert json.loads(done.stdout)["rootfs"]["diff_ids"] == image.attrs["RootFS"]["Layers"]
    agent.client.images.remove("made")
    assert "Loaded image: made:latest" in agent.docker("load", "-i", str(archive)).stdout
    assert agent.client.images.get("made").id == image.id
