"""What Docker's clients are shown, and what they may filter it by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hawse_agent.api.docker.filters import Filters
from hawse_agent.api.docker.lowering.container import container_spec
from hawse_agent.api.docker.views import (
    containers,
    endpoints,
    events,
    executions,
    images,
    networks,
    times,
    volumes,
)
from hawse_agent.engine.views import ContainerState, ContainerView, Event, ExecView, HealthEntry, HealthView
from hawse_agent.errors import InputError
from hawse_agent.images.image import History, Image, ImageConfig, Layer
from hawse_agent.paths import Paths
from hawse_agent.spec.container import ContainerSpec, PortMap
from hawse_agent.spec.records import ContainerRecord, EndpointRecord, NetworkRecord, PortRecord
from hawse_agent.spec.volume import Mount, VolumeSpec
from hawse_agent.volumes.store import VolumeInfo

ID = "c" * 64
NOW = 1_700_000_000.25
IMAGE = Image(
    id="sha256:" + "1" * 64,
    architecture="amd64",
    variant="",
    os="linux",
    created="2024-01-02T03:04:05.6789Z",
    author="me",
    comment="",
    config=ImageConfig(
        entrypoint=("entry",),
        cmd=("serve",),
        env=("PATH=/bin", "A=image"),
        working_dir="/srv",
        exposed_ports=("80/tcp",),
        labels={"from": "image"},
    ),
    diff_ids=("sha256:" + "2" * 64,),
    history=(History(created_by="ADD"), History(created_by="CMD", empty_layer=True)),
    layers=(Layer(digest="sha256:3", media_type="", size=5, diff_id="sha256:2", content_size=700),),
    manifest="sha256:4",
    size=700,
    raw=b"{}",
    repo_tags=("box:1",),
)
SHOP = NetworkRecord(
    id="5" * 64, name="shop", driver="bridge", subnet="10.1.0.0/24", gateway="10.1.0.1", created=NOW
)
NETWORKS = {SHOP.id: SHOP}
PATHS = Paths(lib=Path("/l"), run=Path("/r"), etc=Path("/e"), socket=Path("/s"))
CREATED = ContainerState()


def container(state: ContainerState = CREATED, **spec: Any) -> ContainerView:
    wanted = ContainerSpec(**{"name": "web", "image": "box:1", **spec})
    return ContainerView(
        record=ContainerRecord(id=ID, spec=wanted, image_id=IMAGE.id, created=NOW), state=state
    )


RUNNING = ContainerState(status="running", pid=7, started_at=NOW)


def on_the_shop() -> ContainerView:
    endpoint = EndpointRecord(
        container=ID,
        network=SHOP.id,
        ipv4="10.1.0.2/24",
        mac="02:00:00:00:00:01",
        host_link="v",
        container_link="eth0",
        names=("web", "w"),
    )
    port = PortRecord(
        container=ID,
        host_ip="",
        host_port=8080,
        protocol="tcp",
        container_ip="10.1.0.2",
        container_port=80,
    )
    view = container(RUNNING, network_mode="shop", ports=(PortMap(container_port=80, host_port=8080),))
    return replace(view, endpoints=(endpoint,), ports=(port,))


def inspected(view: ContainerView) -> dict[str, Any]:
    return containers.inspect(view, IMAGE, NETWORKS, PATHS, [])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0001-01-01T00:00:00Z"),
        (NOW, "2023-11-14T22:13:20.25Z"),
        (1_700_000_000, "2023-11-14T22:13:20Z"),
    ],
)
def test_times(seconds: float, text: str) -> None:
    assert times.stamp(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "Less than a second"), (0.9, "Less than a second"), (1, "1 second"), (59, "59 seconds"),
        (60, "About a minute"), (120, "2 minutes"), (3599, "59 minutes"), (3600, "About an hour"),
        (7200, "2 hours"), (47 * 3600, "47 hours"), (48 * 3600, "2 days"), (14 * 86400, "2 weeks"),
        (61 * 86400, "2 months"), (800 * 86400, "2 years"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert times.duration(seconds) == text


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (ContainerState(), "Created"),
        (RUNNING, "Up 5 seconds"),
        (replace(RUNNING, status="paused"), "Up 5 seconds (Paused)"),
        (replace(RUNNING, health=HealthView(status="starting")), "Up 5 seconds (health: starting)"),
        (replace(RUNNING, health=HealthView(status="unhealthy")), "Up 5 seconds (unhealthy)"),
        (ContainerState(status="exited", exit_code=3, finished_at=NOW), "Exited (3) 5 seconds ago"),
        (ContainerState(status="restarting", exit_code=1, finished_at=NOW), "Restarting (1) 5 seconds ago"),
        (ContainerState(status="dead"), "Dead"),
    ],
)
def test_status(state: ContainerState, text: str) -> None:
    assert containers.status_text(state, NOW + 5) == text


def test_a_line_of_the_list() -> None:
    shown = containers.summary(on_the_shop(), IMAGE, NETWORKS)
    assert (shown["Names"], shown["Image"], shown["Command"]) == (["/web"], "box:1", "entry serve")
    assert (shown["State"], shown["Created"]) == ("running", 1_700_000_000)
    assert shown["Ports"] == [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}]
    assert shown["Labels"] == {"from": "image"}
    assert shown["NetworkSettings"]["Networks"]["shop"]["IPAddress"] == "10.1.0.2"
    assert "SizeRw" not in shown
    sized = containers.summary(on_the_shop(), IMAGE, NETWORKS, 50)
    assert (sized["SizeRw"], sized["SizeRootFs"]) == (50, 750)


def test_an_image_that_is_gone() -> None:
    shown = containers.summary(container(command=("a",)), None, NETWORKS, 50)
    assert (shown["Command"], shown["SizeRootFs"]) == ("a", 50)


@pytest.mark.parametrize(
    ("spec", "path", "arguments", "entrypoint", "command"),
    [
        ({}, "entry", ["serve"], ["entry"], ["serve"]),
        ({"command": ("x",)}, "entry", ["x"], ["entry"], ["x"]),
        ({"entrypoint": ("e",)}, "e", [], ["e"], None),
        ({"entrypoint": (), "command": ("x", "y")}, "x", ["y"], [], ["x", "y"]),
    ],
)
def test_what_runs(
    spec: dict[str, Any], path: str, arguments: list[str], entrypoint: list[str], command: list[str] | None
) -> None:
    shown = inspected(container(**spec))
    assert (shown["Path"], shown["Args"]) == (path, arguments)
    assert (shown["Config"]["Entrypoint"], shown["Config"]["Cmd"]) == (entrypoint, command)


def test_the_environment_is_the_images_and_then_the_containers() -> None:
    shown = inspected(container(environment={"A": "own", "B": "2"}))["Config"]
    assert shown["Env"] == ["PATH=/bin", "A=own", "B=2"]
    assert shown["WorkingDir"] == "/srv"


def test_the_state() -> None:
    health = HealthView(
        status="healthy", log=(HealthEntry(start=NOW, end=NOW + 1, exit_code=0, output="well"),)
    )
    shown = inspected(container(replace(RUNNING, status="restarting", health=health)))["State"]
    assert (shown["Running"], shown["Restarting"], shown["Paused"], shown["Pid"]) == (True, True, False, 7)
    assert shown["FinishedAt"] == times.NEVER
    assert shown["Health"]["Log"][0]["Output"] == "well"
    assert "Health" not in inspected(container())["State"]


def test_networks_and_ports() -> None:
    shown = inspected(on_the_shop())["NetworkSettings"]
    assert shown["Ports"] == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}
    endpoint = shown["Networks"]["shop"]
    assert (endpoint["IPAddress"], endpoint["IPPrefixLen"], endpoint["Gateway"]) == (
        "10.1.0.2", 24, "10.1.0.1",
    )  # fmt: skip
    assert endpoint["Aliases"] == ["web", "w"]
    assert inspected(container())["NetworkSettings"]["Ports"] == {"80/tcp": None}


@pytest.mark.parametrize(
    ("mode", "names"), [("default", ["bridge"]), ("host", ["host"]), ("container:x", []), ("shop", ["shop"])]
)
def test_networks_of_one_that_does_not_run(mode: str, names: list[str]) -> None:
    view = container(network_mode=mode)
    assert list(inspected(view)["NetworkSettings"]["Networks"]) == names
    assert endpoints.network_names(view, NETWORKS) == names


MOUNTS = (
    Mount(kind="bind", source="/a", target="/b", create_source=True, read_only=True, propagation="rslave"),
    Mount(kind="volume", source="data", target="/d", no_copy=True),
    Mount(kind="bind", source="/e", target="/f", propagation="shared"),
    Mount(kind="volume", source="data", target="/g", subpath="sub", read_only=True),
    Mount(kind="volume", target="/h"),
    Mount(kind="tmpfs", target="/t", tmpfs_size=1024, tmpfs_mode=0o700, tmpfs_options=("noexec",)),
)


def test_mounts_are_shown_as_they_were_asked_for() -> None:
    shown = inspected(container(mounts=MOUNTS))
    host = shown["HostConfig"]
    assert host["Binds"] == ["/a:/b:ro,rslave", "data:/d:nocopy"]
    assert host["Tmpfs"] == {"/t": "noexec,mode=700,size=1024"}
    assert shown["Config"]["Volumes"] == {"/h": {}}
    again = container_spec(
        {"Image": "box:1", "Volumes": shown["Config"]["Volumes"], "HostConfig": host}, "web"
    )
    assert set(again.mounts) == set(MOUNTS)


def test_what_inspect_shows_can_be_asked_for_again() -> None:
    """Tools that replace containers read one and create the next of it."""
    asked = {
        "Image": "box:1", "Cmd": ["a"], "Tty": True, "StopSignal": "SIGUSR1", "StopTimeout": 3,
        "Labels": {"k": "v"}, "Hostname": "h",
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 10**9, "Retries": 2},
        "HostConfig": {
            "Memory": 1 << 25, "NanoCpus": 5 * 10**8, "PidsLimit": 9, "CapAdd": ["NET_ADMIN"], "Init": True,
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}, "ReadonlyRootfs": True,
            "SecurityOpt": ["no-new-privileges", "seccomp=unconfined"], "ExtraHosts": ["a:10.0.0.1"],
            "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
            "Ulimits": [{"Name": "nofile", "Soft": 5, "Hard": 6}], "Sysctls": {"net.core.somaxconn": "5"},
            "MaskedPaths": [], "ReadonlyPaths": [],
            "LogConfig": {"Type": "local", "Config": {"max-size": "1m"}}, "NetworkMode": "shop",
        },
    }  # fmt: skip
    spec = container_spec(asked, "web")
    shown = inspected(
        ContainerView(record=ContainerRecord(id=ID, spec=spec, image_id=IMAGE.id, created=NOW), state=RUNNING)
    )
    again = container_spec({**shown["Config"], "HostConfig": shown["HostConfig"]}, "web")
    from_image: dict[str, Any] = {
        "environment": again.environment,
        "working_dir": "/srv",
        "expose": again.expose,
        "entrypoint": ("entry",),
        "labels": {"from": "image", "k": "v"},
        "resources": replace(spec.resources, memory_swap=1 << 26),
    }
    assert again == replace(spec, **from_image)


def test_images() -> None:
    line = images.image_summary(IMAGE, 2)
    assert (line["RepoTags"], line["Size"], line["Created"], line["Containers"]) == (
        ["box:1"], 700, 1704164645, 2,
    )  # fmt: skip
    shown = images.image_inspect(IMAGE)
    assert shown["Config"]["ExposedPorts"] == {"80/tcp": {}}
    assert shown["RootFS"]["Layers"] == list(IMAGE.diff_ids)
    newest, oldest = images.image_history(IMAGE)
    assert (newest["Id"], newest["Size"], newest["CreatedBy"]) == (IMAGE.id, 0, "CMD")
    assert (oldest["Id"], oldest["Size"], oldest["CreatedBy"]) == ("<missing>", 700, "ADD")


def test_networks_volumes_executions_and_events() -> None:
    members = [(on_the_shop().endpoints[0], "web")]
    network = networks.network(SHOP, members)
    assert network["IPAM"]["Config"] == [{"Subnet": "10.1.0.0/24", "Gateway": "10.1.0.1"}]
    assert network["Containers"][ID]["IPv4Address"] == "10.1.0.2/24"
    volume = VolumeInfo(spec=VolumeSpec(name="data", labels={"a": "b"}), created=NOW, path=Path("/v/_data"))
    assert volumes.volume(volume)["CreatedAt"] == "2023-11-14T22:13:20Z"
    execution = executions.execution(
        ExecView(
            id="e",
            container=ID,
            argv=("a", "b"),
            tty=False,
            stdin=True,
            stdout=True,
            stderr=False,
            user="bob",
            privileged=False,
            detach_keys="",
            running=False,
            pid=0,
            exit_code=3,
        )
    )
    assert (execution["ExitCode"], execution["Running"], execution["ContainerID"]) == (3, False, ID)
    assert (execution["ProcessConfig"]["arguments"], execution["ProcessConfig"]["user"]) == (["b"], "bob")
    assert (execution["OpenStdin"], execution["OpenStdout"], execution["OpenStderr"]) == (True, True, False)
    event = events.event_json(
        Event(kind="container", action="die", id=ID, attributes={"image": "box"}, time=NOW)
    )
    assert (event["status"], event["from"], event["time"]) == ("die", "box", 1_700_000_000)
    assert event["Actor"] == {"ID": ID, "Attributes": {"image": "box"}}
    assert "status" not in events.event_json(Event(kind="network", action="create", id="n", time=NOW))


def test_filters() -> None:
    filters = Filters({"name": ["^/web$", "b.x"], "status": {"exited": True}, "label": ["a", "k=v"]}, NAMES)
    assert filters.matches("name", "/web", "web") and filters.matches("name", "/boxes")
    assert not filters.matches("name", "/web2", "web2")
    assert filters.one("status", "exited") and not filters.one("status", "running")
    assert filters.labels({"a": "", "k": "v"})
    assert not filters.labels({"a": "", "k": "w"}) and not filters.labels({"k": "v"})
    assert filters.one("id", "anything") and filters.matches("id", "anything")


def test_what_a_filter_lets_be_removed() -> None:
    labels = Filters({"label": ["a"], "label!": ["b", "c=d"]}, NAMES)
    assert labels.prunes({"a": ""}) and labels.prunes({"a": "", "b": ""})  # not both of label!
    assert not labels.prunes({}) and not labels.prunes({"a": "", "b": "", "c": "d"})
    for text in ("10m", "1970-01-01T00:10:00Z", "600"):
        until = Filters({"until": [text]}, NAMES)
        assert until.prunes({}, 599.0)
    assert not until.prunes({}, 600.0)


NAMES = ("id", "name", "status", "label", "label!", "until", "dangling")


@pytest.mark.parametrize(("given", "flag"), [({}, True), ({"dangling": ["false"]}, False)])
def test_a_filter_that_is_a_flag(given: Any, flag: bool) -> None:
    assert Filters(given, NAMES).flag("dangling", True) is flag


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([], "expected an object"),
        ({"colour": ["red"]}, "invalid filter 'colour'"),
        ({"name": "x"}, "expected a list"),
        ({"until": ["yesterday"]}, "invalid filter 'until=yesterday'"),
        ({"until": ["1h", "2h"]}, "more than one until filter"),
    ],
)
def test_wrong_filters(given: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        Filters(given, NAMES)


def test_a_name_that_is_no_expression() -> None:
    with pytest.raises(InputError, match="not a regular expression"):
        Filters({"name": ["a("]}, NAMES).matches("name", "a")
