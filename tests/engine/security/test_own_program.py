"""The agent runs from the host's interpreter: out of reach of what it starts (CVE-2019-5736)."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import imagefiles, probes
from tests.support.agent import BUSYBOX, AgentUnderTest

from hawse_agent.linux import sealed

INTERPRETERS = sorted({sys.executable, probes.PYTHON})

TELL = """\
import os, sys
from hawse_agent.linux import sealed
print(sealed.is_sealed(), sys.executable, os.stat("/proc/self/exe").st_nlink > 0)
sys.stdout.close()
os.open("/proc/self/exe", os.O_RDONLY)  # whoever waits for us finds it under /proc
os.read(0, 1)
"""


def processes(agent: AgentUnderTest) -> Iterator[Path]:
    """Daemon, zygote, name server and shims, below /proc."""
    for line in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split():
        yield Path("/proc", line)
    yield Path(f"/proc/{agent.pid}")
    for path in Path("/proc").glob("[0-9]*"):
        try:
            title = (path / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if title.startswith((b"hawse-shim: ", b"hawse-agent: names")):
            yield path


def refusal(path: Path | str) -> int:
    """The errno of opening it for writing and writing nothing that was not there."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return error.errno or 0
    try:
        os.pwrite(fd, os.pread(fd, 1, 0), 0)
    except OSError as error:
        return error.errno or 0
    finally:
        os.close(fd)
    return 0


def is_protected(path: Path) -> bool:
    """On a read-only overlay, or sealed: a running file that is neither is only busy."""
    with path.open("rb") as file:
        try:
            return fcntl.fcntl(file, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE != 0
        except OSError:  # no memfd
            return refusal(path) == errno.EROFS


def test_all_processes_run_from_a_sealed_copy(agent: AgentUnderTest) -> None:
    agent.client.containers.run(probes.IMAGE, ["sleep", "1000"], detach=True, name="victim")
    agent.client.containers.get("victim").exec_run("true")
    seen = 0
    for process in set(processes(agent)):
        assert is_protected(process / "exe"), (process / "cmdline").read_bytes()
        seen += 1
    assert seen >= 3


@pytest.mark.parametrize("interpreter", INTERPRETERS)
@pytest.mark.parametrize(
    ("way", "expected"),
    [(sealed.overlay, errno.EROFS), (sealed.memfd, errno.EPERM)],
    ids=["overlay", "memfd"],
)
def test_a_sealed_copy_cannot_be_written_once_it_has_ended(
    interpreter: str, way: object, expected: int
) -> None:
    """While it runs the kernel refuses anyway; who holds it open waits for the end."""
    assert callable(way)
    try:
        fd = way(os.path.realpath(interpreter))
    except OSError as error:
        pytest.skip(f"this file system cannot be stacked: {error}")
    command = [interpreter, "-c", TELL]
    package = str(Path(sealed.__file__).parents[2])
    reader, writer = os.pipe()
    waits, ends = os.pipe()  # pytest's own stdin is empty: it would end at once
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(waits, 0)
            os.dup2(writer, 1)
            os.execve(fd, command, {"PYTHONPATH": package})
        finally:
            os._exit(1)
    os.close(writer)
    os.close(waits)
    held = -1
    try:
        with open(reader) as output:
            assert output.readline().split()[:2] == ["True", interpreter]
            held = os.open(f"/proc/{pid}/exe", os.O_PATH | os.O_CLOEXEC)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(ends)
        os.close(fd)
    try:
        assert refusal(f"/proc/self/fd/{held}") == expected
    finally:
        os.close(held)


def test_where_no_overlay_can_be_had_it_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> int:
        raise OSError(errno.EINVAL, "too many of them")

    monkeypatch.setattr(sealed, "WAYS", (refuse, sealed.memfd))
    fd = sealed.seal()
    try:
        assert os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:hawse-agent")
    finally:
        os.close(fd)


def test_a_process_that_cannot_be_sealed_does_not_try_for_ever() -> None:
    code = "from hawse_agent.linux import sealed; sealed.is_sealed = lambda: False; sealed.ensure()"
    package = str(Path(sealed.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": package}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "cannot be run from a sealed copy" in done.stderr


@pytest.fixture(scope="module")
def hostile(daemon: AgentUnderTest) -> str:
    """An image whose programs are what /proc/self/exe is at the moment of the exec."""
    layer = imagefiles.tar(
        imagefiles.directory("proc"),
        imagefiles.symlink("link", "/proc/self/exe"),
        imagefiles.symlink("thread", "/proc/thread-self/exe"),
        imagefiles.entry("script", b"#!/proc/self/exe\n", mode=0o755),
        imagefiles.entry("spaced", b"#! \t/link -c pass\n", mode=0o755),
        imagefiles.entry("nested", b"#!/script\n", mode=0o755),
    )
    config = imagefiles.config([imagefiles.sha256(layer)])
    archive = imagefiles.docker_archive([(config, [layer], ["hostile:exe"])])
    daemon.client.images.load(archive)
    return "hostile:exe"


@pytest.mark.parametrize("program", ["/link", "/thread", "/script", "/spaced", "/nested", "/proc/self/exe"])
def test_an_image_cannot_have_it_executed(agent: AgentUnderTest, hostile: str, program: str) -> None:
    done = agent.docker("run", "--rm", hostile, program, code=126)
    assert "permission denied: it supervises the container" in done.stderr


@pytest.mark.parametrize("program", ["/proc/self/exe", "/script"])
def test_nor_by_an_execution_in_a_running_container(agent: AgentUnderTest, program: str) -> None:
    container = agent.client.containers.run(probes.IMAGE, ["sleep", "1000"], detach=True)
    container.exec_run(["sh", "-c", "echo '#!/proc/self/exe' >/script; chmod 755 /script"])
    done = agent.docker("exec", str(container.id), program, code=126)
    assert "permission denied: it supervises the container" in done.stderr


@pytest.mark.parametrize(
    "options",
    [{}, {"UsernsMode": "auto", "CapAdd": ["SYS_PTRACE", "SYS_ADMIN"]}],
    ids=["default", "root of its own users"],
)
def test_what_enters_a_container_is_not_seen_before_it_is_the_program(
    agent: AgentUnderTest, options: dict[str, Any]
) -> None:
    """CVE-2016-9962: it cannot be looked into. By a watcher that looks at all processes all the time."""
    binds = ["/usr:/usr:ro", f"{probes.INSIDER}:/insider.py:ro"]
    config = {
        "Image": probes.IMAGE,
        "Cmd": probes.arguments("watch"),
        "HostConfig": {"Binds": binds, **options},
    }
    made = agent.client.api.create_container_from_config(config)  # Docker's clients know no users "auto"
    container = agent.client.containers.get(made["Id"])
    container.start()
    output = container.logs(stream=True, follow=True)
    assert next(output).strip() == b"watching"
    for _ in range(10):
        assert container.exec_run(["/bin/busybox", "true"]).exit_code == 0
    container.exec_run(["/bin/busybox", "touch", "/tmp/stop"])
    seen = set(json.loads(next(output))["watch"])
    assert seen <= {"/bin/busybox", os.path.realpath(probes.PYTHON), "EACCES", "ENOENT", "ESRCH"}
    assert os.path.realpath(probes.PYTHON) in seen


def test_the_root_of_what_enters_is_never_the_hosts(agent: AgentUnderTest, tmp_path: Path) -> None:
    """Also a container that may trace, and so look into it, sees no root but its own."""
    marker = tmp_path / "marker"
    marker.touch()
    script = (
        "echo watching; until [ -e /stop ]; do"
        f" for p in /proc/[0-9]*; do [ -e $p/root{marker} ] && echo $p has the root of the host; done; done"
    )
    box = agent.client.containers.run(
        BUSYBOX, ["sh", "-c", script], cap_add=["SYS_PTRACE"], detach=True, init=True
    )
    output = box.logs(stream=True, follow=True)
    assert next(output) == b"watching\n"
    for _ in range(25):
        assert box.exec_run(["true"]).exit_code == 0
    box.exec_run(["touch", "/stop"])
    assert b"".join(output) == b""


@pytest.mark.parametrize("ipc", ["private", "shareable"])
def test_the_root_of_what_joins_is_never_the_hosts(agent: AgentUnderTest, tmp_path: Path, ipc: str) -> None:
    """Nor do its directory and its descriptors lead there: of a container in the PID namespace of one that
    may trace, from its birth on."""
    marker = tmp_path / "marker"
    marker.touch()
    places = '"$p/root" "$p/cwd" "$p"/fd/*'
    script = (
        "echo watching; until [ -e /stop ]; do for p in /proc/[0-9]*; do "
        f"for d in {places}; do [ -e $d{marker} ] || [ -e $d/pyproject.toml ] || [ -e $d/hawse_agent ]"
        " && echo $d is of the host; done; done; done"
    )
    box = agent.client.containers.run(
        BUSYBOX, ["sh", "-c", script], cap_add=["SYS_PTRACE"], detach=True, init=True, ipc_mode=ipc
    )
    output = box.logs(stream=True, follow=True)
    assert next(output) == b"watching\n"
    modes = {"pid_mode": f"container:{box.id}"}
    if ipc == "shareable":
        modes |= {"ipc_mode": f"container:{box.id}", "network_mode": f"container:{box.id}"}
    for _ in range(4):
        said = agent.client.containers.run(
            BUSYBOX,
            ["ls", "-d", "/proc/1/task"],
            remove=True,
            volumes=["/usr:/mnt:ro"],
            **modes,
        )
        assert said == b"/proc/1/task\n"
        assert box.exec_run(["true"]).exit_code == 0
    box.exec_run(["touch", "/stop"])
    assert b"".join(output) == b""


def test_the_init_of_a_container_is_nothing_of_ours(agent: AgentUnderTest) -> None:
    """It stays where root of the container sees it: its own program, without our memory or environment."""
    words = [f"read:/proc/1/{name}" for name in ("environ", "maps", "cmdline")]
    found = probes.attack(agent, *words, "write:/proc/1/exe", init=True, cap_add=["SYS_PTRACE"])
    assert found["write:/proc/1/exe"] in ("ETXTBSY", "EPERM")
    assert found["read:/proc/1/environ"] == ""
    assert "python" not in found["read:/proc/1/maps"] + found["read:/proc/1/cmdline"]
