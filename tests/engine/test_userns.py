"""Containers with users and groups of their own: who they are on the host, what they may, what is refused."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError
from docker.models.containers import Container
from tests.support import agent as agents
from tests.support import busybox, isolation, linux
from tests.support.agent import BUSYBOX, AgentUnderTest
from tests.support.cli import hawse

from hawse.fleet.client import AgentClient
from hawse.fleet.connect import socket_agent
from hawse_agent.spec.container import ContainerSpec
from hawse_agent.spec.host import LABEL_SERVICE, LABEL_STACK, HostSpec, ImageSource, Item, StackSpec

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]

CLAIMS = Path("/run/hawse-ids")
COUNT = 65536
_PROCESS = ("user", "tty", "stdin_open", "healthcheck")
POOL = 0x70000000
"""The first id that is given out where agent.toml says nothing."""


@pytest.fixture(autouse=True, scope="module")
def _ids_can_be_mapped(daemon: AgentUnderTest) -> None:
    try:
        run(daemon, "true", remove=True)
    except APIError as error:
        if "cannot map ids" not in str(error):
            raise
        pytest.skip(f"the file system of {daemon.root} cannot map ids")


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host that everybody may enter."""
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    yield tmp_path


def create(agent: AgentUnderTest, *argv: str, userns: str = "auto", **options: Any) -> Container:
    """Docker's own clients refuse `auto` before they ask."""
    api = agent.client.api
    config = {name: options.pop(name) for name in _PROCESS if name in options}
    host = api.create_host_config(**{name: value for name, value in options.items() if name != "remove"})
    host["UsernsMode"] = userns
    container: Container = agent.client.containers.get(
        api.create_container(BUSYBOX, list(argv), host_config=host, **config)["Id"]
    )
    return container


def run(agent: AgentUnderTest, script: str, *, remove: bool = False, **options: Any) -> str:
    """To its end, which must be a good one; what it said."""
    container = create(agent, "sh", "-c", script, **options)
    container.start()
    code = container.wait(timeout=60)["StatusCode"]
    said: str = container.logs().decode()
    assert code == 0, said
    if remove:
        container.remove()
    return said


def start(agent: AgentUnderTest, script: str = "sleep 1000", **options: Any) -> Container:
    """In the background, until it has said `up`."""
    container = create(agent, "sh", "-c", f"echo up; {script}", **options)
    container.start()
    said = b""
    for piece in container.logs(stream=True, follow=True):
        said += piece
        if b"up" in said:
            break
    assert said.startswith(b"up")
    container.reload()
    return container


def within(container: Container, *argv: str, **options: Any) -> str:
    code, output = container.exec_run(list(argv), **options)
    assert code == 0, output
    return str(output.decode())


def first_id(container: Container) -> int:
    container.reload()
    return int(container.attrs["IDMappings"]["UidMap"][0].split(":")[1])


# Who it is


def test_root_is_nobody_on_the_host(agent: AgentUnderTest) -> None:
    container = start(agent)
    pid, first = container.attrs["State"]["Pid"], first_id(container)
    assert first >= POOL
    for name in ("uid_map", "gid_map"):
        assert Path(f"/proc/{pid}/{name}").read_text().split() == ["0", str(first), str(COUNT)]
    assert os.stat(f"/proc/{pid}").st_uid == first
    assert within(container, "id", "-u") == "0\n"
    assert within(container, "sh", "-c", "id -u; cat /proc/self/uid_map", user="bob").split() == [
        "1000", "0", str(first), str(COUNT),
    ]  # fmt: skip
    capabilities = within(container, "grep", "Cap", "/proc/1/status").split()[1::2]
    assert capabilities == ["0" * 16, *["00000000a80425fb"] * 3, "0" * 16]
    assert container.attrs["HostConfig"]["UsernsMode"] == "auto"


def test_its_namespaces_belong_to_it(agent: AgentUnderTest) -> None:
    """So that its capabilities are good for them, and for nothing of the host's."""
    script = """
        fails() { if "$@" 2> /dev/null; then echo "allowed: $*"; exit 1; fi; }
        set -e
        mount -o remount,rw,bind /proc/sys
        hostname other
        mount -t tmpfs tmpfs /tmp
        ip link add br9 type bridge
        echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start
        fails sh -c 'echo 1 > /proc/sys/kernel/panic'
        fails mknod /tmp/loop b 7 0
        fails dmesg -n 1
        fails chown 70000 /tmp
        fails nice -n -5 true
        fails cat /dev/kmsg
    """
    run(agent, script, cap_add=["ALL"], security_opt=["seccomp=unconfined"])


def test_two_have_nobody_in_common(agent: AgentUnderTest) -> None:
    one, other = start(agent), start(agent)
    assert abs(first_id(one) - first_id(other)) >= COUNT
    assert {link.name for link in CLAIMS.iterdir()} == {str(first_id(c)) for c in (one, other)}
    other.remove(force=True)
    assert [link.name for link in CLAIMS.iterdir()] == [str(first_id(one))]
    one.remove(force=True)
    assert not CLAIMS.exists()


# Files


def test_files_keep_the_owners_that_it_sees(agent: AgentUnderTest) -> None:
    script = (
        "touch /root/mine /data/mine; chown bob:audio /etc/passwd; rm /bin/wc; mv /home /house; "
        "stat -c '%u:%g' / /etc/passwd /data /data/mine"
    )
    container = create(agent, "sh", "-c", script, binds=["kept:/data"])
    container.start()
    assert container.wait(timeout=60)["StatusCode"] == 0
    assert container.logs().decode().split() == ["0:0", "1000:29", "0:0", "0:0"]
    upper = Path(agent.root, "lib/containers", container.id or "", "upper")
    assert owner(upper / "root/mine") == (0, 0)
    assert owner(upper / "etc/passwd") == (1000, 29)
    assert owner(Path(agent.root, "lib/volumes/kept/_data/mine")) == (0, 0)
    assert run(agent, "stat -c '%u:%g' /data/mine", binds=["kept:/data"], userns="host") == "0:0\n"


def owner(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid


def test_the_files_of_the_stack_are_its_own(agent: AgentUnderTest) -> None:
    script = "stat -c %u /etc/hosts /etc/resolv.conf /etc/hostname; echo 10.1.1.1 x >> /etc/hosts"
    assert run(agent, script) == "0\n0\n0\n"


def test_binds_are_the_hosts_unless_mapping_is_asked_for(agent: AgentUnderTest, shared: Path) -> None:
    (shared / "secret").write_text("secret")
    (shared / "secret").chmod(0o600)
    (shared / "open").write_text("open\n")
    script = "stat -c %u /host/secret; cat /host/open; cat /host/secret || touch /host/new || echo"
    said = run(agent, script, binds=[f"{shared}:/host"])
    assert "65534\n" in said and "open\n" in said
    assert said.count("Permission denied") == 2
    script = "stat -c %u /host/secret; cat /host/secret; touch /host/new"
    assert run(agent, script, binds=[f"{shared}:/host:idmap"]) == "0\nsecret"
    assert owner(shared / "new") == (0, 0)


def test_what_cannot_be_mapped_is_refused_by_name(agent: AgentUnderTest, shared: Path) -> None:
    for name in ("lower", "upper", "work", "merged"):
        (shared / name).mkdir()
    merged = shared / "merged"
    options = f"lowerdir={shared}/lower,upperdir={shared}/upper,workdir={shared}/work"
    linux.mount("overlay", str(merged), "overlay", 0, options)
    try:
        container = create(agent, "true", binds=[f"{merged}:/host:idmap"])
        with pytest.raises(APIError, match=f"the file system of {merged} cannot map ids"):
            container.start()
        assert f"warning  user namespaces: the file system of {merged} cannot" in doctor(merged)
        assert f"ok       user namespaces: {shared} can map ids" in doctor(shared)
    finally:
        linux.umount(str(merged))


def test_files_are_copied_with_the_owners_that_it_sees(agent: AgentUnderTest, shared: Path) -> None:
    """Running or not: its ids are those of the kernel, or those on the disk."""
    (shared / "new").mkdir()
    (shared / "new/file").write_text("from outside\n")
    os.chown(shared / "new/file", 1000, 29)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(shared / "new", "new")
    container = start(
        agent, "touch /root/mine; chown bob /root/mine; sleep 1000", binds=["kept:/data"], tmpfs={"/t": ""}
    )
    for target in ("/home", "/data", "/t"):
        assert container.put_archive(target, packed.getvalue())
        assert within(container, "stat", "-c", "%u:%g", f"{target}/new", f"{target}/new/file").split() == [
            "0:0", "1000:29",
        ]  # fmt: skip
    within(container, "sh", "-c", "until test -e /root/mine; do sleep 0.1; done")
    running = owners(container)
    container.kill()
    container.wait(timeout=60)
    assert owners(container) == running
    assert running["home/new/file"] == (1000, 29)
    assert running["root/mine"] == (1000, 0)
    assert container.put_archive("/root", packed.getvalue())
    container.start()
    assert within(container, "stat", "-c", "%u:%g", "/root/new/file") == "1000:29\n"


def owners(container: Container) -> dict[str, tuple[int, int]]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(container.export()))) as tar:
        return {entry.name: (entry.uid, entry.gid) for entry in tar if not entry.name.startswith("dev")}


def doctor(root: Path) -> str:
    """A process of its own: the one of the tests has threads."""
    command = [sys.executable, "-m", "hawse_agent", "doctor", "--root", str(root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout


def test_standard_streams_can_be_opened_again(agent: AgentUnderTest) -> None:
    assert run(agent, "echo out > /dev/stdout; echo err > /proc/self/fd/2", user="bob") == "out\nerr\n"
    container = start(agent)
    assert within(container, "sh", "-c", "echo out > /dev/stdout", user="bob") == "out\n"


# What goes on as ever


def test_a_service_on_a_network(agent: AgentUnderTest) -> None:
    """A store that writes its volume, asked by name and found healthy; restarted with its data and its ids
    after the daemon was killed."""
    agent.client.networks.create("shop")
    serve = "cp -n /etc/hostname /data/index.html; chown bob /data; exec httpd -f -p 80 -u bob -h /data"
    check = {"test": ["CMD-SHELL", "wget -qO- http://127.0.0.1 && id -u | grep -x 0"], "interval": 10**9}
    container = start(agent, serve, binds=["shop:/data"], network_mode="shop", healthcheck=check)
    container.rename("store")
    fetch = "until wget -qO- http://store; do sleep 0.1; done; ping -c 1 -w 10 store > /dev/null"
    name = run(agent, fetch, network_mode="shop")
    pid, first = container.attrs["State"]["Pid"], first_id(container)
    agent.kill()
    agent.start()
    container.reload()
    assert container.attrs["State"]["Pid"] == pid
    deadline = time.monotonic() + 60
    while container.attrs["State"]["Health"]["Status"] != "healthy":
        assert time.monotonic() < deadline, container.attrs["State"]["Health"]
        time.sleep(0.1)
        container.reload()
    container.restart(timeout=1)
    assert first_id(container) == first
    assert within(container, "cat", "/data/index.html") == name
    assert run(agent, fetch, network_mode="shop") == name


def test_restarts_by_policy_in_the_same_namespace(agent: AgentUnderTest) -> None:
    """The network namespace stays, and belongs to the first one's."""
    script = "readlink /proc/self/ns/user; readlink /proc/self/ns/net; ip link set lo mtu 1400; exit 1"
    container = create(
        agent, "sh", "-c", script, cap_add=["NET_ADMIN"],
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 1},
    )  # fmt: skip
    container.start()
    container.wait(timeout=60)
    lines = container.logs().decode().splitlines()
    assert lines[:2] == lines[2:]
    assert lines[0] != os.readlink("/proc/self/ns/user")


def test_a_terminal(agent: AgentUnderTest) -> None:
    script = "tty; stat -c %U $(tty); echo again > /dev/tty; echo console > /dev/console"
    said = run(agent, script, user="bob", tty=True)
    assert said.split() == ["/dev/pts/0", "bob", "again", "console"]
    container = start(agent)
    assert within(container, "sh", "-c", "echo hi > $(tty)", tty=True).strip() == "hi"


def test_limits_and_devices(agent: AgentUnderTest) -> None:
    said = run(
        agent,
        "ulimit -n; cat /proc/self/oom_score_adj; stat -c %u:%g /t; head -c 3 /dev/zero | wc -c; "
        "dd if=/dev/zero of=/dev/shm/x bs=4096 count=1 2> /dev/null; cat /proc/sys/net/ipv4/ip_forward",
        ulimits=[{"Name": "nofile", "Soft": 77, "Hard": 88}],
        oom_score_adj=500,
        tmpfs={"/t": "uid=1000,gid=29"},
        sysctls={"net.ipv4.ip_forward": "1"},
        devices=["/dev/zero:/dev/mine"],
        pids_limit=20,
    )
    assert said.split() == ["77", "500", "1000:29", "3", "1"]


# Sharing


def test_shares_namespaces_with_one_of_the_same_ids(agent: AgentUnderTest) -> None:
    one = start(agent, "echo here > /dev/shm/file; sleep 1000", ipc_mode="shareable")
    name = one.name or ""
    modes = {f"{kind}_mode": f"container:{name}" for kind in ("network", "pid", "ipc")}
    script = "cat /dev/shm/file; readlink /proc/self/ns/user; readlink /proc/1/ns/user"
    said = run(agent, script, userns="", **modes).split()
    assert said[0] == "here"
    assert said[1] == said[2] != os.readlink("/proc/self/ns/user")


def test_sharing_takes_the_other_ones_ids(agent: AgentUnderTest) -> None:
    one, plain = start(agent), start(agent, userns="host")
    other = start(agent, userns="", network_mode=f"container:{one.name}")
    assert first_id(other) == first_id(one)
    with pytest.raises(APIError, match="not in one user namespace of its own"):
        create(agent, "true", network_mode=f"container:{plain.name}")
    shares = {"userns": "", "network_mode": f"container:{one.name}"}
    with pytest.raises(APIError, match="host PID namespace when user namespaces are enabled"):
        create(agent, "true", pid_mode="host", **shares)
    with pytest.raises(APIError, match="privileged mode is incompatible with user namespaces"):
        create(agent, "true", privileged=True, **shares)
    with pytest.raises(APIError, match="host's network namespace when user namespaces are enabled"):
        create(agent, "true", userns="", network_mode="host", pid_mode=f"container:{one.name}")
    with pytest.raises(APIError, match="not in one user namespace of its own"):
        create(agent, "true", pid_mode=f"container:{plain.name}", **shares)
    with pytest.raises(APIError, match="with ids of its own with --userns=host"):
        create(agent, "true", userns="host", network_mode=f"container:{one.name}")
    first = first_id(one)
    one.remove(force=True)
    assert [link.name for link in CLAIMS.iterdir()] == [str(first)]  # as long as somebody lives in it


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"privileged": True}, "privileged mode is incompatible with user namespaces"),
        ({"network_mode": "host"}, "cannot share the host's network namespace when user namespaces are"),
        ({"pid_mode": "host"}, "cannot share the host PID namespace when user namespaces are enabled"),
        ({"ipc_mode": "host"}, "cannot share the host's IPC namespace when user namespaces are enabled"),
        ({"binds": ["/tmp:/x:rshared"]}, "propagation rshared is not possible when user namespaces"),
        ({"userns": "private"}, "UsernsMode 'private' is not supported: host and auto are"),
    ],
)
def test_refused(agent: AgentUnderTest, options: dict[str, Any], message: str) -> None:
    with pytest.raises(APIError, match=message):
        create(agent, "true", **options)


# As it is asked for


@pytest.mark.skipif(shutil.which("docker") is None, reason="needs docker's command line")
def test_docker_goes_on_with_it(agent: AgentUnderTest, shared: Path) -> None:
    """Docker's own client cannot ask for it, and notices nothing of it either."""
    container = start(agent, "cat", tty=True, stdin_open=True)
    name = container.name or ""
    assert (
        agent.docker("exec", "-u", "bob", name, "sh", "-c", "id -u > /tmp/x; cat /tmp/x").stdout == "1000\n"
    )
    (shared / "file").write_text("from outside\n")
    agent.docker("cp", str(shared / "file"), f"{name}:/root")
    assert agent.docker("exec", name, "stat", "-c", "%u:%g", "/root/file").stdout == "0:0\n"
    agent.docker("cp", f"{name}:/tmp/x", str(shared / "x"))
    assert (shared / "x").read_text() == "1000\n"
    assert "A /root/file" in agent.docker("diff", name).stdout
    assert agent.docker("top", name, "-eo", "pid,uid").stdout.split()[3] == str(first_id(container))
    agent.docker("pause", name)
    agent.docker("unpause", name)
    agent.docker("stop", "-t", "0", name)
    agent.docker("start", name)
    assert agent.docker("exec", name, "cat", "/root/file").stdout == "from outside\n"


def test_a_plan_has_it(agent: AgentUnderTest) -> None:
    """A stack's container gets it, keeps it, and is made anew to lose it."""
    labels = {LABEL_STACK: "shop", LABEL_SERVICE: "a"}
    plain = ContainerSpec(
        name="shop-a-1",
        image=BUSYBOX,
        command=("sleep", "1000"),
        labels=labels,
        stop_signal="SIGKILL",
    )
    mapped = dataclasses.replace(plain, userns_mode="auto")
    with socket_agent(agent.socket) as client:
        assert apply(client, mapped) == [("container", [])]
        container = agent.client.containers.get("shop-a-1")
        assert first_id(container) >= POOL
        assert apply(client, mapped) == []
        assert apply(client, plain) == [("container", [("userns_mode", "auto", "(unset)")])]
        with pytest.raises(KeyError):
            first_id(agent.client.containers.get("shop-a-1"))


def apply(client: AgentClient, *containers: ContainerSpec) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """What was done: kinds of operations, each with the fields that differed."""
    stack = StackSpec(name="shop", images=(ImageSource(reference=BUSYBOX),), containers=containers)
    spec = HostSpec(items=(Item(id="0", name="shop", stack=stack),))
    plan = client.plan(spec).plan
    last = list(client.apply(spec, plan.digest))[-1]
    assert last["event"] == "end" and not last["failed"], last
    return [(op.kind, [(c.field, c.old, c.new) for c in op.changes]) for op in plan.operations]


def test_by_hawse(agent: AgentUnderTest) -> None:
    said = hawse(agent.socket, "run", "--rm", "--userns=auto", BUSYBOX, "cat", "/proc/self/uid_map").stdout
    assert said.split()[0] == "0"
    assert int(said.split()[1]) >= POOL


def test_the_default_and_the_pool_are_the_hosts(agent: AgentUnderTest) -> None:
    """Of two agents on a machine neither gives out what the other has."""
    mine = start(agent)
    session = isolation.current()
    assert session is not None
    root = agents.new_root(session.directory)
    (root / "etc").mkdir(parents=True)
    (root / "etc/agent.toml").write_text(
        f'init = true\n[userns]\ndefault = "auto"\nfirst = {first_id(mine)}\nsize = {2 * COUNT}\n'
    )
    first = first_id(mine) + COUNT
    with AgentUnderTest(root) as other:
        other.load_busybox()
        assert "name=userns" in other.client.info()["SecurityOptions"]
        script = "echo $$; cat /proc/self/uid_map"
        one = create(other, "sh", "-c", script, userns="")
        one.start()
        assert one.wait(timeout=60)["StatusCode"] == 0
        assert one.logs().split() == [b"2", b"0", str(first).encode(), str(COUNT).encode()]
        with pytest.raises(APIError, match="no ids are left for another container: all 2 ranges"):
            create(other, "true", userns="")
        assert run(other, script, userns="host", remove=True).split() == ["2", "0", "0", "4294967295"]
        plain = run(other, script, userns="host", init=False, remove=True)
        assert plain.split() == ["1", "0", "0", "4294967295"]
        one.remove()
        create(other, "true", userns="").remove()
        with pytest.raises(APIError, match="privileged mode is incompatible"):
            create(other, "true", userns="", privileged=True)
    shutil.rmtree(root)


def test_committed_files_belong_to_who_has_them_inside(agent: AgentUnderTest) -> None:
    container = create(agent, "sh", "-c", "echo x > /x; chown 1000:10 /x; touch /mine; sleep 1000")
    container.start()
    while container.exec_run("test -e /mine").exit_code:
        continue
    image = container.commit("committed")
    try:
        script = ["stat", "-c", "%u:%g", "/x", "/mine"]
        told = agent.client.containers.run(image.id, script, network_mode="none", remove=True)
        assert told.decode().split() == ["1000:10", "0:0"]
    finally:
        agent.client.images.remove(image.id, force=True)
