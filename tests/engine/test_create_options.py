"""What options of a create request do in the container, and how they are refused; by Docker's CLI."""

from __future__ import annotations

import json
import os
import socket
import stat
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker.errors import APIError
from tests.support import busybox, imagefiles, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
    pytest.mark.skipif(not os.path.exists("/usr/local/bin/docker"), reason="needs the docker CLI"),
]

PATIENCE = 60.0


def out(agent: AgentUnderTest, *words: str) -> str:
    return agent.docker(*words).stdout.strip()


def run(agent: AgentUnderTest, *options: str, script: str) -> str:
    return out(agent, "run", "--rm", *options, BUSYBOX, "sh", "-c", script)


def refused(agent: AgentUnderTest, *options: str, code: int = 125) -> str:
    return agent.docker("run", "--rm", *options, BUSYBOX, "true", code=code).stderr


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ports_of_a_range(agent: AgentUnderTest) -> None:
    """Each takes the first that is free, of containers and of the host."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("0.0.0.0", 18001))
        taken.listen()
        for name in ("aa", "bb"):
            out(agent, "run", "-d", "--name", name, "-p", "18000-18002:80", BUSYBOX, "sleep", "1000")
        assert out(agent, "port", "aa") == "80/tcp -> 0.0.0.0:18000"
        assert out(agent, "port", "bb") == "80/tcp -> 0.0.0.0:18002"
        third = agent.docker("run", "-d", "-p", "18000-18002:80", BUSYBOX, "sleep", "1000", code=125)
        assert "port is already allocated" in third.stderr
    bindings = json.loads(out(agent, "inspect", "-f", "{{json .HostConfig.PortBindings}}", "bb"))
    assert bindings == {"80/tcp": [{"HostIp": "", "HostPort": "18000-18002"}]}
    out(agent, "run", "-d", "--name", "cc", "-p", "80", "-p", "18010-18011:90-91", BUSYBOX, "sleep", "1000")
    shown = out(agent, "port", "cc").splitlines()
    assert shown[1:] == ["90/tcp -> 0.0.0.0:18010", "91/tcp -> 0.0.0.0:18011"]
    assert shown[0].startswith("80/tcp -> 0.0.0.0:")


def test_more_cpus_than_there_are(agent: AgentUnderTest) -> None:
    count = len(os.sched_getaffinity(0))
    text = f"range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
    assert text in refused(agent, "--cpus", str(count + 1))
    run(agent, "--cpus", str(count), script="true")


@pytest.fixture
def image(agent: AgentUnderTest, tmp_path: Path) -> Iterator[str]:
    """busybox with variables, a health check and an exposed port."""
    busybox.make_layer(tmp_path / "layer")
    with tarfile.open(tmp_path / "layer.tar", "w") as tar:
        tar.add(tmp_path / "layer", ".")
    layer = (tmp_path / "layer.tar").read_bytes()
    config = imagefiles.config(
        [imagefiles.sha256(layer)],
        Env=["GREETING=hello", "OTHER=o"],
        Healthcheck={"Test": ["CMD", "true"], "Interval": 100_000_000_000, "Retries": 7},
        ExposedPorts={"6379/tcp": {}},
    )
    agent.client.images.load(imagefiles.docker_archive([(config, [layer], ["special:1"])]))
    yield "special:1"
    agent.clear()
    agent.client.images.remove("special:1")


def test_times_of_a_health_check_alone(agent: AgentUnderTest, image: str) -> None:
    """They complete the image's check; without one there is none."""
    out(agent, "create", "--name", "one", "--health-interval", "50ms", image, "sleep", "1000")
    assert json.loads(out(agent, "inspect", "-f", "{{json .Config.Healthcheck}}", "one")) == {
        "Test": ["CMD", "true"],
        "Interval": 50_000_000,
        "Retries": 7,
    }
    out(agent, "start", "one")
    until(lambda: out(agent, "inspect", "-f", "{{.State.Health.Status}}", "one") == "healthy")
    out(agent, "run", "-d", "--name", "two", "--health-retries", "2", BUSYBOX, "sleep", "1000")
    assert out(agent, "inspect", "-f", "{{json .State.Health}}", "two") == "null"


def test_the_images_variables_can_be_taken_away(agent: AgentUnderTest, image: str) -> None:
    script = ["sh", "-c", "echo ${GREETING-none} ${OTHER-none}"]
    assert out(agent, "run", "--rm", image, *script) == "hello o"
    assert out(agent, "run", "--rm", "-e", "GREETING", image, *script) == "none o"
    out(agent, "run", "-d", "--name", "one", image, "sleep", "1000")
    assert out(agent, "exec", "-e", "OTHER", "one", *script) == "hello none"


def test_links_on_the_default_network(agent: AgentUnderTest, image: str) -> None:
    """A line in /etc/hosts, which follows the other's address, and Docker's variables."""
    out(agent, "run", "-d", "--name", "the-db", "--expose", "53/udp", "-e", "A=b", image, "sleep", "1000")
    ip = out(agent, "inspect", "-f", "{{.NetworkSettings.IPAddress}}", "the-db")
    identity = out(agent, "inspect", "-f", "{{.Id}}", "the-db")[:12]
    out(agent, "run", "-d", "--name", "app", "--link", "the-db:my-db", BUSYBOX, "sleep", "1000")
    assert f"{ip}\tmy-db {identity} the-db" in out(agent, "exec", "app", "cat", "/etc/hosts").splitlines()
    assert set(out(agent, "exec", "app", "env").splitlines()) >= {
        f"MY_DB_PORT=tcp://{ip}:6379",
        f"MY_DB_PORT_6379_TCP=tcp://{ip}:6379",
        f"MY_DB_PORT_6379_TCP_ADDR={ip}",
        "MY_DB_PORT_6379_TCP_PORT=6379",
        "MY_DB_PORT_6379_TCP_PROTO=tcp",
        f"MY_DB_PORT_53_UDP=udp://{ip}:53",
        "MY_DB_NAME=/app/my-db",
        "MY_DB_ENV_A=b",
        "MY_DB_ENV_GREETING=hello",
    }
    assert out(agent, "inspect", "-f", "{{.HostConfig.Links}}", "app") == "[/the-db:/app/my-db]"
    assert "ping statistics" in out(agent, "exec", "app", "ping", "-c", "1", "-w", "20", "my-db")

    out(agent, "stop", "-t", "0", "the-db")
    out(agent, "run", "-d", "--name", "between", "--ip", ip, BUSYBOX, "sleep", "1000")
    out(agent, "start", "the-db")
    moved = out(agent, "inspect", "-f", "{{.NetworkSettings.IPAddress}}", "the-db")
    assert moved != ip
    until(lambda: f"{moved}\tmy-db {identity} the-db" in out(agent, "exec", "app", "cat", "/etc/hosts"))
    assert ip not in out(agent, "exec", "app", "cat", "/etc/hosts")

    out(agent, "stop", "-t", "0", "the-db", "app")
    stopped = agent.docker("start", "app", code=1).stderr
    assert "Cannot link to a non running container: /the-db AS /app/my-db" in stopped
    for options in (["--link", "nobody"], ["--volumes-from", "nobody"]):
        said = refused(agent, *options)
        assert "nobody" in said and "Unable to find image" not in said


def test_whom_it_joins_or_is_linked_to_stays_who_it_was(agent: AgentUnderTest) -> None:
    """Names change hands: ids are what a container keeps of others."""
    keep = ("run", "-d", "--ipc", "shareable", "--name")
    donor = out(agent, *keep, "donor", BUSYBOX, "sleep", "1000")
    modes = [option for kind in ("--network", "--pid", "--ipc") for option in (kind, "container:donor")]
    out(agent, "run", "-d", "--name", "sharer", *modes, BUSYBOX, "sleep", "1000")
    out(agent, "run", "-d", "--name", "linked", "--link", "donor:d", BUSYBOX, "sleep", "1000")
    shown = "{{with .HostConfig}}{{.NetworkMode}} {{.PidMode}} {{.IpcMode}}{{end}}"
    assert out(agent, "inspect", "-f", shown, "sharer").split() == [f"container:{donor}"] * 3

    out(agent, "rename", "donor", "renamed")
    other = out(agent, *keep, "donor", BUSYBOX, "sleep", "1000")
    out(agent, "restart", "-t", "0", "sharer", "linked")
    spaces = [
        [out(agent, "exec", c, "readlink", f"/proc/self/ns/{kind}") for kind in ("net", "pid", "ipc")]
        for c in ("sharer", "renamed")
    ]
    assert spaces[0] == spaces[1]
    assert f"d {donor[:12]} renamed" in out(agent, "exec", "linked", "cat", "/etc/hosts")
    assert out(agent, "inspect", "-f", "{{.HostConfig.Links}}", "linked") == "[/renamed:/linked/d]"

    out(agent, "rm", "-f", "renamed", "sharer")
    assert out(agent, "inspect", "-f", "{{.HostConfig.Links}}", "linked") == "[]"
    out(agent, "restart", "-t", "0", "linked")
    assert other[:12] not in out(agent, "exec", "linked", "cat", "/etc/hosts")
    out(agent, "run", "-d", "--name", "late", "--network", "container:donor", BUSYBOX, "sleep", "1000")
    out(agent, "rm", "-f", "donor")
    out(agent, *keep, "donor", BUSYBOX, "sleep", "1000")
    assert f"No such container: {other}" in agent.docker("restart", "-t", "0", "late", code=1).stderr


def test_links_on_a_network_of_ones_own(agent: AgentUnderTest) -> None:
    """A name that this container alone knows."""
    out(agent, "network", "create", "shop")
    out(agent, "run", "-d", "--name", "db", "--network", "shop", BUSYBOX, "sleep", "1000")
    script = "ping -c 1 -w 20 store >/dev/null && echo reached"
    assert run(agent, "--network", "shop", "--link", "db:store", script=script) == "reached"
    script = "nslookup store 127.0.0.11 >/dev/null 2>&1 || echo unknown"
    assert run(agent, "--network", "shop", script=script) == "unknown"
    assert "can't be used with links" in refused(agent, "--network", "host", "--link", "db:store")


def test_labels_of_volumes_that_a_mount_makes(agent: AgentUnderTest) -> None:
    mount = "type=volume,src=made,dst=/d,volume-label=a=b,volume-label=c=d"
    run(agent, "--mount", mount, script="true")
    assert json.loads(out(agent, "volume", "inspect", "-f", "{{json .Labels}}", "made")) == {
        "a": "b",
        "c": "d",
    }


def test_volumes_from_outlives_the_lender_and_inspect_shows_what_it_brought(
    agent: AgentUnderTest, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("bound")
    out(agent, "create", "--name", "lender", "-v", "/data", "-v", f"{tmp_path}:/bound", BUSYBOX)
    out(agent, "run", "-d", "--name", "user", "--volumes-from", "lender:ro", BUSYBOX, "sleep", "99")
    out(agent, "rm", "-v", "lender")
    out(agent, "restart", "-t", "0", "user")
    script = "cat /bound/f; touch /data/x 2>/dev/null || echo refused"
    assert out(agent, "exec", "user", "sh", "-c", script) == "boundrefused"
    mounts = agent.client.containers.get("user").attrs["Mounts"]
    assert {(mount["Destination"], mount["Type"], mount["RW"]) for mount in mounts} == {
        ("/data", "volume", False),
        ("/bound", "bind", False),
    }


def test_volumes_from_brings_the_same_part_of_a_volume(agent: AgentUnderTest) -> None:
    """A subpath, and a volume that is empty still: it takes nothing of the borrower's image."""
    run(agent, "-v", "vol:/d", script="mkdir /d/sub; echo all > /d/secret; echo part > /d/sub/f")
    mounts = (
        "--mount",
        "type=volume,src=vol,dst=/d,volume-subpath=sub",
        "--mount",
        "type=volume,dst=/bin/sub",
    )
    out(agent, "create", "--name", "lender", *mounts, BUSYBOX, "true")
    assert run(agent, "--volumes-from", "lender", script="cat /d/*; ls /bin/sub; echo more > /d/g") == "part"
    out(agent, "create", "--name", "again", "--volumes-from", "lender:ro", BUSYBOX, "true")
    script = "cat /d/f /d/g; touch /d/h 2>/dev/null || echo refused"
    assert run(agent, "--volumes-from", "again", script=script).split() == ["part", "more", "refused"]


def test_options_of_a_tmpfs(agent: AgentUnderTest) -> None:
    script = "grep ' /t ' /proc/mounts; stat -c '%u %g %a' /t; df -P /t | tail -n 1; df -Pi /t | tail -n 1"
    options = "exec,suid,noatime,uid=5,gid=6,mode=1700,size=50%,nr_inodes=100"
    mounted, owner, blocks, inodes = run(agent, "--tmpfs", f"/t:{options}", script=script).splitlines()
    flags = mounted.split()[3].split(",")
    assert {"nodev", "noatime"} <= set(flags) and not {"noexec", "nosuid"} & set(flags)
    assert owner == "5 6 1700"
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2048
    assert abs(int(blocks.split()[1]) - half) < half // 10
    assert inodes.split()[1] == "100"
    plain = run(agent, "--tmpfs", "/t", script="grep ' /t ' /proc/mounts").split()[3].split(",")
    assert {"noexec", "nosuid", "nodev", "rw"} <= set(plain)


def test_a_directory_of_devices(agent: AgentUnderTest, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    os.mknod(tmp_path / "one", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(tmp_path / "inner" / "two", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    script = "head -c 3 /dev/mine/inner/two | od -An -tx1; echo x > /dev/mine/one && echo written"
    said = run(agent, "--device", f"{tmp_path}:/dev/mine", script=script)
    assert said.split() == ["00", "00", "00", "written"]


def test_paths_of_the_kernel_can_be_left_open(agent: AgentUnderTest) -> None:
    script = "grep -c ' /proc/' /proc/mounts"
    assert int(run(agent, script=f"{script} || true")) > 3
    assert run(agent, "--security-opt", "systempaths=unconfined", script=f"{script} || true") == "0"
    out(agent, "create", "--name", "one", "--security-opt", "systempaths=unconfined", BUSYBOX)
    assert out(agent, "inspect", "-f", "{{.HostConfig.MaskedPaths}}", "one") == "[]"
    out(agent, "create", "--name", "two", BUSYBOX)
    assert "/proc/kcore" in out(agent, "inspect", "-f", "{{.HostConfig.MaskedPaths}}", "two")


def test_no_confinement_that_there_is_not(agent: AgentUnderTest) -> None:
    options = ("--security-opt", "apparmor=unconfined", "--security-opt", "label=disable")
    assert run(agent, *options, script="echo fine") == "fine"
    assert "'apparmor' is not supported" in refused(agent, "--security-opt", "apparmor=docker-default")


def test_options_that_contradict_each_other(agent: AgentUnderTest) -> None:
    out(agent, "run", "-d", "--name", "other", BUSYBOX, "sleep", "1000")
    for options, text in (
        (["--uts", "host", "--hostname", "named"], "conflicting options"),
        (["-w", "relative"], "needs to be an absolute path"),
        (["--network", "container:other", "-p", "80"], "port publishing and the container type network mode"),
        (["--network", "container:other", "--hostname", "x"], "conflicting options"),
        (
            ["--network", "host", "--sysctl", "net.ipv4.ip_forward=1"],
            "is not allowed without an own network namespace",
        ),
    ):
        assert text in refused(agent, *options)
    negative = agent.docker("create", "--restart", "on-failure:-1", BUSYBOX, code=1)
    assert "maximum retry count cannot be negative" in negative.stderr


def test_no_shared_memory(agent: AgentUnderTest) -> None:
    script = "grep -c ' /dev/shm ' /proc/mounts || true"
    assert run(agent, script=script) == "1"
    assert run(agent, "--ipc", "none", script=script) == "0"


def test_ports_that_the_hosts_network_makes_needless(agent: AgentUnderTest) -> None:
    done = agent.docker("create", "--network", "host", "-p", "80:80", BUSYBOX)
    assert "Published ports are discarded when using host network mode" in done.stderr


def test_nobody_attaches_to_what_is_paused(agent: AgentUnderTest) -> None:
    container = agent.client.containers.run(BUSYBOX, ["sleep", "1000"], detach=True)
    container.pause()
    with pytest.raises(APIError, match="is paused, unpause the container before attach"):
        container.attach(stream=True)
    container.unpause()
    container.remove(force=True)


def test_exit_codes_of_exec(agent: AgentUnderTest) -> None:
    out(agent, "run", "-d", "--name", "one", BUSYBOX, "sleep", "1000")
    done = agent.docker("exec", "-u", "nosuch", "one", "true", code=126)
    assert "unable to find user nosuch" in done.stdout + done.stderr
    done = agent.docker("exec", "-w", "/nosuch", "one", "true", code=127)
    assert "no such file or directory" in (done.stdout + done.stderr).lower()
    agent.docker("exec", "one", "/etc", code=126)
    agent.docker("exec", "one", "nosuch", code=127)


def test_who_shares_the_network_has_its_name(agent: AgentUnderTest) -> None:
    names = ("--name", "donor", "--hostname", "box", "--domainname", "dom")
    agent.docker("run", "-d", *names, BUSYBOX, "sleep", "1000")
    said = agent.docker(
        *("run", "--rm", "--network", "container:donor", BUSYBOX, "sh", "-c"),
        "hostname; cat /proc/sys/kernel/domainname; cat /etc/hostname; echo $HOSTNAME",
    )
    assert said.stdout.split() == ["box", "dom", "box", "box"]


def test_memory_is_shared_only_with_who_offers_it(agent: AgentUnderTest) -> None:
    for mode in ("private", "shareable", "none"):
        agent.docker("run", "-d", "--name", mode, "--ipc", mode, BUSYBOX, "sleep", "1000")
    for mode in ("private", "none"):
        done = agent.docker("run", "--rm", "--ipc", f"container:{mode}", BUSYBOX, "true", code=125)
        assert "non-shareable IPC (hint: use IpcMode:shareable for the donor container)" in done.stderr
    agent.docker("run", "--rm", "--ipc", "container:shareable", BUSYBOX, "true")
