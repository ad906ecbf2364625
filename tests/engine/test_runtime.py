"""Real containers by `runtime.create` and `runtime.enter`, without shim or daemon."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.support import busybox, isolation
from tests.support import machine as machine_support

from hawse_agent.cgroups import Base, find_base
from hawse_agent.errors import Conflict, InputError, StartFailed
from hawse_agent.linux import privilege
from hawse_agent.paths import paths_for
from hawse_agent.runtime.create import Spawned, spawn
from hawse_agent.runtime.defaults import (
    DEFAULT_CAPABILITIES,
)
from hawse_agent.runtime.enter import Entered, enter
from hawse_agent.runtime.process import Stdio
from hawse_agent.spec import codec
from hawse_agent.spec.container import Device, Resources, Ulimit
from hawse_agent.spec.runtime import BindMount, RuntimeConfig, TmpfsMount

pytestmark = [
    pytest.mark.skipif(
        isolation.current() is None, reason="needs a session: python -m tests.support.isolation"
    ),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]


@dataclass(frozen=True, kw_only=True)
class Result:
    code: int
    output: str
    warnings: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        return self.output.splitlines()


class Machine(machine_support.Machine):
    def run(self, *argv: str, **fields: Any) -> Result:
        return run(self.config(*argv, **fields))

    def sh(self, script: str, **fields: Any) -> Result:
        return self.run("sh", "-c", script, **fields)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    base = find_base(paths_for(tmp_path / "agent"))
    machine = Machine(tmp_path, base)
    before = mounts()
    yield machine
    assert machine.tree.names() == []
    assert mounts() == before
    machine.tree.remove_base()


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def run(config: RuntimeConfig, netns_fd: int | None = None) -> Result:
    """To its end; output of both streams."""
    with started(config, netns_fd) as (spawned, output):
        text = read_all(output if spawned.console is None else spawned.console)
        _, status = os.waitpid(spawned.pid, 0)
        return Result(code=os.waitstatus_to_exitcode(status), output=text, warnings=spawned.warnings)


@contextlib.contextmanager
def started(config: RuntimeConfig, netns_fd: int | None = None) -> Iterator[tuple[Spawned, int]]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    spawned = spawn(config, Stdio(stdout=writer, stderr=writer), netns_fd)
    os.close(writer)
    try:
        spawned.go()
        try:
            yield spawned, reader
        finally:
            with contextlib.suppress(ChildProcessError, ProcessLookupError):
                os.kill(spawned.pid, signal.SIGKILL)
                # PID 1 ends when all in its namespace have been reaped, and nobody else does that here.
                while os.waitpid(-1, 0)[0] != spawned.pid:
                    pass
            spawned.cgroup.remove()
    finally:
        for fd in (reader, spawned.pidfd, spawned.console, spawned.netns_fd):
            if fd is not None and fd != netns_fd:
                os.close(fd)


@contextlib.contextmanager
def entered(
    config: RuntimeConfig, spawned: Spawned, *argv: str, **fields: Any
) -> Iterator[tuple[Entered, int]]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    wanted = replace(config.process, argv=argv, **fields)
    try:
        inside = enter(config, spawned.pid, spawned.pidfd, wanted, Stdio(stdout=writer, stderr=writer))
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    try:
        yield inside, reader
    finally:
        for fd in (reader, inside.pidfd, inside.console):
            if fd is not None:
                os.close(fd)


def execute(config: RuntimeConfig, spawned: Spawned, *argv: str, **fields: Any) -> Result:
    with entered(config, spawned, *argv, **fields) as (inside, output):
        text = read_all(output if inside.console is None else inside.console)
        _, status = os.waitpid(inside.pid, 0)
        return Result(code=os.waitstatus_to_exitcode(status), output=text, warnings=inside.warnings)


def read_all(fd: int) -> str:
    pieces = []
    while True:
        try:
            piece = os.read(fd, 65536)
        except OSError:  # EIO: the terminal's last user has gone
            break
        if not piece:
            break
        pieces.append(piece)
    return b"".join(pieces).decode().replace("\r\n", "\n")


# What it is


def test_runs_in_namespaces_of_its_own(machine: Machine) -> None:
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
    inside = machine.sh("readlink " + " ".join(f"/proc/self/ns/{kind}" for kind in kinds)).lines
    assert not set(inside) & {os.readlink(f"/proc/self/ns/{kind}") for kind in kinds}


def test_is_pid_1_with_its_own_host_name(machine: Machine) -> None:
    result = machine.sh("echo $$; hostname; cat /proc/sys/kernel/domainname", domainname="example.org")
    assert (result.code, result.lines) == (0, ["1", "box", "example.org"])


def test_exit_code(machine: Machine) -> None:
    assert machine.sh("exit 42").code == 42


def test_has_dockers_capabilities_and_filter(machine: Machine) -> None:
    lines = dict(line.split(":\t") for line in machine.run("cat", "/proc/self/status").lines if ":\t" in line)
    mask = f"{sum(1 << privilege.CAPABILITIES.index(name) for name in DEFAULT_CAPABILITIES):016x}"
    assert [lines[f"Cap{kind}"] for kind in ("Bnd", "Prm", "Eff", "Inh", "Amb")] == [mask] * 3 + [
        "0" * 16
    ] * 2
    assert lines["Seccomp"] == "2"


def test_closes_every_file_of_the_shim(machine: Machine) -> None:
    assert machine.sh("ls /proc/$$/fd; true").lines == ["0", "1", "2"]


def test_stdin_is_dev_null(machine: Machine) -> None:
    result = machine.sh("readlink /proc/self/fd/0; cat")
    assert (result.code, result.output) == (0, "/dev/null\n")


def test_sigpipe_is_not_ignored(machine: Machine) -> None:
    lines = machine.run("grep", "-E", "Sig(Ign|Blk)", "/proc/self/status").lines
    of_libc = (
        0b11 << 31
    )  # 32 and 33, which libc keeps from everybody: they stay as whoever ran the tests had them
    assert [(line[:6], int(line[7:], 16) & ~of_libc) for line in lines] == [("SigBlk", 0), ("SigIgn", 0)]


def test_devices(machine: Machine) -> None:
    result = machine.sh(
        "cd /dev; stat -c '%n %F %t:%T %a' null zero full random urandom tty; readlink fd; readlink ptmx"
    )
    assert result.lines == [
        "null character special file 1:3 666",
        "zero character special file 1:5 666",
        "full character special file 1:7 666",
        "random character special file 1:8 666",
        "urandom character special file 1:9 666",
        "tty character special file 5:0 666",
        "/proc/self/fd",
        "pts/ptmx",
    ]


def test_root_directory_is_like_the_images(machine: Machine) -> None:
    machine.layer.chmod(0o751)
    assert machine.sh("stat -c '%a %u' /").lines == ["751 0"]


def test_loopback_is_up(machine: Machine) -> None:
    assert "UP" in machine.run("ip", "link", "show", "lo").output


def test_image_without_layers(machine: Machine) -> None:
    with pytest.raises(StartFailed, match="not found in"):
        machine.run("sh", layers=())


def test_same_root_after_a_restart(machine: Machine) -> None:
    config = machine.config("sh", "-c", "ls /mark; touch /mark")
    assert run(config).code == 0
    assert run(config).lines[0] == "/mark"


def test_many_layers(machine: Machine) -> None:
    layers = []
    for number in range(120):
        layer = machine.directory / "layers" / f"{number:0100}"
        layer.mkdir(parents=True)
        (layer / f"file{number}").touch()
        layers.append(str(layer))
    result = machine.sh("ls -d /file* | wc -l", layers=(*layers, str(machine.layer)))
    assert result.lines == ["120"]


# Who it is


def test_user_by_name_with_groups_and_home(machine: Machine) -> None:
    result = machine.sh("id; echo $HOME", process={"user": "bob"})
    assert result.lines == ["uid=1000(bob) gid=1000(bob) groups=10(wheel),1000(bob)", "/home/bob"]


@pytest.mark.parametrize(
    ("user", "group_add", "expected"),
    [
        ("", (), "0 0 0"),
        ("1000", (), "1000 1000 10 1000"),
        ("4711", (), "4711 0 0"),
        ("bob:audio", (), "1000 29 29"),
        ("4711:4712", ("audio", "99"), "4711 4712 29 99 4712"),
    ],
)
def test_user(machine: Machine, user: str, group_add: tuple[str, ...], expected: str) -> None:
    """uid, gid, and all groups; what the gid does twice in them is `id`'s."""
    result = machine.sh("id -u; id -g; id -G", process={"user": user, "group_add": group_add})
    uid, gid, groups = result.lines
    assert " ".join([uid, gid, *sorted(set(groups.split()), key=int)]) == expected


def test_plain_user_has_no_capabilities(machine: Machine) -> None:
    result = machine.sh("grep -E 'Cap(Prm|Eff)' /proc/self/status", process={"user": "bob"})
    assert result.lines == ["CapPrm:\t" + "0" * 16, "CapEff:\t" + "0" * 16]


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("nobody-here", "unable to find user nobody-here: no matching entries in passwd file"),
        ("bob:nogroup", "unable to find group nogroup: no matching entries in group file"),
    ],
)
def test_unknown_user(machine: Machine, user: str, message: str) -> None:
    with pytest.raises(StartFailed, match=message):
        machine.run("id", process={"user": user})


def test_passwd_may_be_a_fifo_or_lead_out(machine: Machine) -> None:
    (machine.layer / "etc/passwd").unlink()
    os.mkfifo(machine.layer / "etc/passwd")
    with pytest.raises(StartFailed, match="not a regular file"):
        machine.run("id", process={"user": "bob"})
    (machine.layer / "etc/passwd").unlink()
    (machine.layer / "etc/passwd").symlink_to("../../../../etc/shadow")
    with pytest.raises(StartFailed, match="no matching entries"):
        machine.run("id", process={"user": "daemon"})


def test_user_can_open_its_standard_streams_again(machine: Machine) -> None:
    assert machine.sh("echo again > /dev/stdout", process={"user": "bob"}).lines == ["again"]


def test_working_directory_is_made(machine: Machine) -> None:
    assert machine.run("pwd", process={"cwd": "/srv/app/data"}, read_only=True).lines == ["/srv/app/data"]


def test_limits(machine: Machine) -> None:
    limits = (Ulimit(name="nofile", soft=100, hard=200), Ulimit(name="core", soft=0, hard=0))
    result = machine.sh("ulimit -Sn; ulimit -Hn; ulimit -c", process={"rlimits": limits})
    assert (result.lines, result.warnings) == (["100", "200", "0"], ())


def test_limit_beyond_the_hosts_warns_without_the_capability(machine: Machine) -> None:
    if privilege.bounding() >> privilege.CAPABILITIES.index("CAP_SYS_RESOURCE") & 1:
        pytest.skip("CAP_SYS_RESOURCE may raise any limit")
    limits = (Ulimit(name="nofile", soft=1 << 25, hard=1 << 25),)
    result = machine.sh("ulimit -Hn", process={"rlimits": limits})
    assert result.code == 0
    assert result.warnings and "nofile" in result.warnings[0]


def test_no_new_privileges(machine: Machine) -> None:
    result = machine.sh(
        "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status", process={"no_new_privileges": True}
    )
    assert result.lines == ["NoNewPrivs:\t1", "Seccomp:\t2"]


# What cannot be executed


@pytest.mark.parametrize(
    ("program", "code", "message"),
    [
        ("nothing", 127, r'exec: "nothing": executable file not found in \$PATH'),
        ("/bin/nothing", 127, 'exec: "/bin/nothing": stat /bin/nothing: no such file or directory'),
        ("/etc", 126, 'exec: "/etc": is a directory'),
        ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied'),
        ("/bin/garbage", 126, "exec /bin/garbage: exec format error"),
        ("/bin/script", 127, "exec /bin/script: no such file or directory"),
    ],
)
def test_cannot_execute(machine: Machine, program: str, code: int, message: str) -> None:
    for name, text in (("garbage", "\x01\x02"), ("script", "#!/no/such/shell\n")):
        (machine.layer / "bin" / name).write_text(text)
        (machine.layer / "bin" / name).chmod(0o755)
    with pytest.raises(StartFailed, match=message) as failure:
        machine.run(program)
    assert failure.value.container_exit == code
    assert failure.value.step == "exec"


def test_failed_start_leaves_nothing(machine: Machine) -> None:
    fds = os.listdir("/proc/self/fd")
    with pytest.raises(StartFailed, match="mount /nowhere on /data: No such file or directory") as failure:
        machine.run("true", binds=(BindMount(source="/nowhere", target="/data"),))
    assert (failure.value.step, failure.value.container_exit) == ("mount volumes", 125)
    assert os.listdir("/proc/self/fd") == fds
    assert machine.tree.names() == []


def test_abort_before_go(machine: Machine) -> None:
    spawned = spawn(machine.config("true"), Stdio())
    spawned.prepare()
    assert machine.tree.names() == [spawned.cgroup.name]
    spawned.abort()
    assert spawned.netns_fd is not None
    os.close(spawned.netns_fd)
    os.close(spawned.pidfd)


# What it must not do


@pytest.mark.parametrize("path", ["/proc/keys", "/proc/timer_list", "/proc/interrupts"])
def test_masked_files_are_empty(machine: Machine, path: str) -> None:
    if not Path(path).exists():
        pytest.skip(f"this kernel has no {path}")
    assert machine.run("cat", path).output == ""


def test_masked_directories_are_empty(machine: Machine) -> None:
    assert machine.sh("ls -A /sys/firmware /proc/acpi 2>/dev/null | grep -v :").output.strip() == ""


@pytest.mark.parametrize(
    "path",
    ["/proc/sys/kernel/hostname", "/proc/irq/default_smp_affinity", "/sys/kernel/mm", "/sys/fs/cgroup"],
)
def test_kernel_file_systems_are_read_only(machine: Machine, path: str) -> None:
    result = machine.sh(f"test -d {path} && mkdir {path}/x || echo x > {path}")
    assert result.code != 0
    assert "Read-only file system" in result.output or "nonexistent directory" in result.output


@pytest.mark.parametrize(
    "attempt",
    ["mount -t tmpfs none /tmp", "unshare -m true", "unshare -U true", "umount /proc", "hostname other"],
)
def test_filter_and_capabilities_forbid(machine: Machine, attempt: str) -> None:
    result = machine.sh(attempt)
    assert result.code != 0
    assert "not permitted" in result.output.lower() or "permission denied" in result.output


def test_disk_nodes_can_be_made_but_not_opened(machine: Machine) -> None:
    result = machine.sh("mknod /disk b 7 0 && head -c 1 /disk", binds=())
    assert "Operation not permitted" in result.output
    assert result.code != 0


def test_read_only_root(machine: Machine) -> None:
    result = machine.sh(
        "touch /x; touch /tmp/y && echo tmp", read_only=True, tmpfs=(TmpfsMount(target="/tmp", size=1 << 20),)
    )
    assert result.lines == ["touch: /x: Read-only file system", "tmp"]


def test_link_in_the_image_does_not_lead_a_mount_out(machine: Machine) -> None:
    victim = machine.directory / "victim"
    victim.mkdir()
    source = machine.directory / "volume"
    source.mkdir()
    (source / "mark").touch()
    (machine.layer / "data").symlink_to(f"../../../../../..{victim}")
    (machine.layer / "absolute").symlink_to(victim)
    result = machine.sh(
        f"ls {victim}/a/mark {victim}/b/mark",
        binds=tuple(
            BindMount(source=str(source), target=target)
            for target in ("/data/a", "/absolute/b", "/../../../up")
        ),
    )
    assert (result.code, list(victim.iterdir())) == (0, [])
    assert not Path("/up").exists()


def test_magic_link_as_a_mount_target_is_refused(machine: Machine) -> None:
    (machine.layer / "escape").symlink_to("/proc/self/root/tmp")
    with pytest.raises(StartFailed, match="mount volumes"):
        machine.run("true", binds=(BindMount(source="/tmp", target="/escape/x"),))


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_image_with_a_link_in_place_of_a_kernel_directory_is_refused(machine: Machine, name: str) -> None:
    (machine.layer / name).symlink_to("tmp")
    with pytest.raises(StartFailed, match=f"/{name} of the image is not a directory"):
        machine.run("true")


def test_nothing_is_mounted_inside_proc(machine: Machine) -> None:
    (machine.layer / "innocent").symlink_to("/proc/sys")
    for target in ("/proc/self/attr", "/innocent/kernel"):
        with pytest.raises(StartFailed, match="inside /proc"):
            machine.run("true", binds=(BindMount(source="/tmp", target=target),))


def test_bind_of_a_directory_on_a_file_is_refused(machine: Machine) -> None:
    with pytest.raises(StartFailed, match="the target is not"):
        machine.run("true", binds=(BindMount(source="/tmp", target="/etc/passwd"),))


@pytest.mark.parametrize("key", ["kernel.panic", "vm.swappiness", "kernel.hostname"])
def test_sysctl_of_the_host_is_refused(machine: Machine, key: str) -> None:
    with pytest.raises(InputError, match=f"'{key}' is not allowed"):
        machine.run("true", sysctls={key: "1"})


def test_sysctl_of_a_shared_namespace_is_refused(machine: Machine) -> None:
    with pytest.raises(InputError, match="own network namespace"):
        machine.run("true", network="host", sysctls={"net.ipv4.ip_forward": "1"})


def test_custom_filter(machine: Machine) -> None:
    profile = """{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"""
    assert "No space left" in machine.run("mkdir", "/x", seccomp=profile).output


def test_cgroup_of_somebody_else_is_not_taken(machine: Machine) -> None:
    config = machine.config("sleep", "60")
    with started(config), pytest.raises(Conflict, match="has processes"):
        run(replace(machine.config("true"), cgroup=config.cgroup))


# What it may do


def test_sysctls_of_its_namespaces(machine: Machine) -> None:
    wanted = {"net.ipv4.ip_unprivileged_port_start": "80", "kernel.shmmax": "65536", "fs.mqueue.msg_max": "7"}
    paths = " ".join("/proc/sys/" + key.replace(".", "/") for key in wanted)
    assert machine.sh(f"cat {paths}", sysctls=wanted).lines == ["80", "65536", "7"]


def test_binds(machine: Machine) -> None:
    source = machine.directory / "source"
    source.mkdir()
    (source / "file").write_text("content\n")
    result = machine.sh(
        "cat /a/b/file /one; touch /a/b/new; touch /ro/new",
        binds=(
            BindMount(source=str(source), target="/a/b"),
            BindMount(source=str(source), target="/ro", read_only=True),
            BindMount(source=str(source / "file"), target="/one", read_only=True),
        ),
    )
    assert result.lines == ["content", "content", "touch: /ro/new: Read-only file system"]
    assert (source / "new").exists()


def test_tmpfs_options(machine: Machine) -> None:
    tmpfs = (
        TmpfsMount(target="/run", size=1 << 20, mode=0o700, options=("exec", "uid=1000")),
        TmpfsMount(target="/var/lib/x", options=("ro",)),
    )
    lines = machine.sh("grep -E ' /(run|var/lib/x) ' /proc/mounts; stat -c '%a %u' /run", tmpfs=tmpfs).lines
    assert lines[2] == "700 1000"
    assert "noexec" not in lines[0] and "size=1024k" in lines[0]
    assert "ro,nosuid,nodev,noexec" in lines[1]


def test_shared_memory_size(machine: Machine) -> None:
    assert "size=1024k" in machine.sh("grep /dev/shm /proc/mounts", shm_size=1 << 20).output


def test_wanted_device(machine: Machine) -> None:
    device = Device(host="/dev/loop-control", target="/dev/my/loop")
    if not Path(device.host).exists():
        pytest.skip("no loop devices")
    result = machine.sh("stat -c '%t:%T' /dev/my/loop; exec 3</dev/my/loop && echo open", devices=(device,))
    assert result.lines == ["a:ed", "open"]
    assert machine.sh("mknod /loop c 10 237; exec 3</loop && echo open").code != 0


def test_privileged(machine: Machine) -> None:
    result = machine.sh(
        "mount -t tmpfs none /tmp && echo mounted; grep Seccomp: /proc/self/status; ls /dev/loop-control;"
        "mkdir /sys/fs/cgroup/*/sub && rmdir /sys/fs/cgroup/*/sub && echo cgroup",
        privileged=True,
    )
    assert result.lines[:2] == ["mounted", "Seccomp:\t0"]
    if Path("/dev/loop-control").exists():
        assert result.lines[2] == "/dev/loop-control"
    assert machine.base.version == 2 or "cgroup" in result.output


def test_terminal(machine: Machine) -> None:
    process = {"tty": True, "user": "bob", "console_height": 30, "console_width": 100}
    result = machine.sh("tty; stty size; stat -c '%U %t' /dev/console; ps -o tty | tail -1", process=process)
    assert result.lines == ["/dev/pts/0", "30 100", "bob 88", "136,0"]


def test_init_reaps_and_passes_signals_on(machine: Machine) -> None:
    script = """
        until test "$(cat /proc/1/comm)" = hawse-init; do sleep 0.01; done
        (sleep 0.01 &) ; trap 'echo term; exit 7' TERM; echo up; sleep 5 & wait
    """
    with started(machine.config("sh", "-c", script, init=True)) as (spawned, output):
        assert os.read(output, 3) == b"up\n"
        os.kill(spawned.pid, signal.SIGTERM)
        assert read_all(output) == "term\n"
        _, status = os.waitpid(spawned.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 7


def test_init_has_nothing_of_ours(machine: Machine) -> None:
    """No memory, no variable, no descriptor; and its program cannot be written to."""
    script = """
        until test "$(cat /proc/1/comm)" = hawse-init; do sleep 0.01; done
        tr '\\0' ' ' < /proc/1/cmdline; echo; cat /proc/1/environ | wc -c; ls /proc/1/fd | wc -l
        readlink /proc/1/exe; (: > /proc/1/exe) 2> /dev/null || echo sealed
        awk '/^Rss/ { print $2 < 100 }' /proc/1/smaps_rollup
    """
    result = machine.sh(script, init=True, process={"env": ("PATH=/bin", "SECRET=x")})
    assert result.lines == ["hawse-init 2 ", "0", "0", "/memfd:hawse-init (deleted)", "sealed", "1"]


@pytest.mark.parametrize(("ending", "code"), [("exit 3", 3), ("kill -9 $$", 137), ("kill -SEGV $$", 139)])
def test_init_ends_as_the_program_does(machine: Machine, ending: str, code: int) -> None:
    assert machine.sh(ending, init=True).code == code


def test_init_reaps_what_others_leave(machine: Machine) -> None:
    """Hundreds of orphans, half of them of a process that was executed beside it; none stays."""
    many = "i=0; while [ $i -lt 200 ]; do (sleep 0 &); i=$((i+1)); done; echo made"
    config = machine.config("sh", "-c", f"{many}; exec sleep 1000", init=True)
    with started(config) as (spawned, output):
        assert os.read(output, 5) == b"made\n"
        assert execute(config, spawned, "sh", "-c", many).output == "made\n"
        gone = "until test $(ls -d /proc/[0-9]* | wc -l) -le 10; do sleep 0.05; done"
        assert execute(config, spawned, "timeout", "30", "sh", "-c", gone).code == 0


def test_init_gives_the_terminal_to_the_program(machine: Machine) -> None:
    script = "trap 'echo got; exit 4' INT; echo up; while :; do sleep 0.05; done"
    with started(machine.config("sh", "-c", script, init=True, process={"tty": True})) as (spawned, _):
        assert spawned.console is not None
        assert os.read(spawned.console, 100).startswith(b"up")
        os.write(spawned.console, b"\x03")
        assert "got" in read_all(spawned.console)
        _, status = os.waitpid(spawned.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 4


def test_init_passes_real_time_signals_on_to_another_user(machine: Machine) -> None:
    number = signal.SIGRTMIN + 3
    script = f"trap 'echo rt; exit 5' {number:d}; echo up; while :; do sleep 0.05; done"
    with started(machine.config("sh", "-c", script, init=True, process={"user": "bob"})) as (spawned, output):
        assert os.read(output, 3) == b"up\n"
        os.kill(spawned.pid, number)
        assert read_all(output) == "rt\n"


def test_init_under_a_filter_that_forbids_it_to_wait_for_signals(machine: Machine) -> None:
    """It passes nothing on then, but ends as the program ends, and does not turn in circles."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["rt_sigtimedwait"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    }
    used = "$(awk '{ print $14 + $15 }' /proc/1/stat)"
    script = f"(sleep 0.01 &); before={used}; sleep 1; echo $(({used} - before < 50)); exit 6"
    result = machine.sh(script, init=True, seccomp=json.dumps(profile))
    assert (result.code, result.lines) == (6, ["1"])


def test_init_reports_a_missing_program(machine: Machine) -> None:
    with pytest.raises(StartFailed, match="not found") as failure:
        machine.run("nothing", init=True)
    assert failure.value.container_exit == 127


# Limits


def test_limits_are_in_force_and_read_back(machine: Machine) -> None:
    resources = Resources(memory=33_333_333, memory_swap=66_666_666, cpus=0.333, pids=20, cpuset_cpus="0")
    with started(machine.config("sleep", "60", resources=resources)) as (spawned, _):
        assert spawned.cgroup.limits() == resources
        assert spawned.cgroup.stats().memory_limit == 33_333_333 // 4096 * 4096
        assert spawned.pid in spawned.cgroup.pids()
        changed = replace(resources, memory=100_000_000, memory_swap=-1, cpus=None, pids=None, cpuset_cpus="")
        spawned.cgroup.apply(changed)
        assert machine.tree.open(spawned.cgroup.name).limits() == changed


def test_fork_bomb_stops_at_the_pids_limit(machine: Machine) -> None:
    result = machine.sh("for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait", resources=Resources(pids=5))
    assert "Resource temporarily unavailable" in result.output or "can't fork" in result.output


def test_out_of_memory_is_noticed(machine: Machine) -> None:
    resources = Resources(memory=16 << 20, memory_swap=16 << 20)
    config = machine.config("sh", "-c", "head -c 100000000 /dev/zero | tail", resources=resources)
    spawned = spawn(config, Stdio())
    spawned.prepare()
    notifier = spawned.cgroup.oom_notifier()
    assert notifier is not None
    with started_by(spawned):
        poll = select.poll()
        poll.register(notifier.fd, notifier.events)
        assert poll.poll(10_000)
        os.waitpid(spawned.pid, 0)
        assert spawned.cgroup.oom_kills() >= 1
    os.close(notifier.fd)


@contextlib.contextmanager
def started_by(spawned: Spawned) -> Iterator[None]:
    spawned.go()
    yield
    spawned.cgroup.kill()
    spawned.cgroup.remove()
    for fd in (spawned.pidfd, spawned.netns_fd):
        if fd is not None:
            os.close(fd)


def test_freeze_and_kill(machine: Machine) -> None:
    with started(machine.config("sleep", "60")) as (spawned, _):
        spawned.cgroup.freeze()
        spawned.cgroup.kill()
        _, status = os.waitpid(spawned.pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


# Sharing


def test_network_namespace_is_used_again(machine: Machine) -> None:
    config = machine.config("readlink", "/proc/self/ns/net")
    with started(config) as (spawned, output):
        first = read_all(output)
        os.waitpid(spawned.pid, 0)
        assert run(replace(config, cgroup="again"), spawned.netns_fd).output == first


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts"])
def test_shares_a_namespace_of_another_container(machine: Machine, kind: str) -> None:
    donor = machine.config("sleep", "60")
    with started(donor) as (other, _):
        theirs = os.readlink(f"/proc/{other.pid}/ns/{kind}")
        name = machine.as_donor(donor, other.pid)
        result = machine.sh(
            f"readlink /proc/self/ns/{kind}; ls -d /proc/1/task", **{f"{kind}_namespace": name}
        )
        assert result.lines[0] == theirs
    assert os.readlink("/proc/self/ns/pid") == os.readlink("/proc/self/ns/pid_for_children")


def test_shares_network_and_shared_memory(machine: Machine) -> None:
    donor = machine.config("sh", "-c", "echo here > /dev/shm/file; sleep 60")
    with started(donor) as (other, _):
        deadline = time.monotonic() + 5
        while not Path(f"/proc/{other.pid}/root/dev/shm/file").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        result = machine.sh(
            "readlink /proc/self/ns/net; cat /dev/shm/file",
            network=machine.as_donor(donor, other.pid),
            ipc_namespace=machine.as_donor(donor, other.pid),
        )
        assert result.lines == [os.readlink(f"/proc/{other.pid}/ns/net"), "here"]


@pytest.mark.parametrize("whose", ["another's", "the host's", "nobody's"])
def test_shares_nothing_with_who_has_the_number_of_another_container(machine: Machine, whose: str) -> None:
    """What a shim has written may be old: its number is somebody else's by now."""
    donor = machine.config("sleep", "60")
    with started(machine.config("sleep", "60")) as (stranger, _), started(donor):
        pid = {"another's": stranger.pid, "the host's": os.getpid(), "nobody's": 0}[whose]
        name = machine.as_donor(donor, pid)
        for field in ("network", "pid_namespace", "ipc_namespace"):
            with pytest.raises(Conflict, match=f"the namespaces of container {donor.id}: it is not running"):
                machine.run("true", **{field: name})


def test_hosts_namespaces(machine: Machine) -> None:
    kinds = ("net", "pid", "ipc", "uts")
    result = machine.sh(
        "for k in net pid ipc uts; do readlink /proc/self/ns/$k; done; hostname",
        network="host",
        pid_namespace="host",
        ipc_namespace="host",
        uts_namespace="host",
    )
    assert result.lines == [*(os.readlink(f"/proc/self/ns/{kind}") for kind in kinds), socket.gethostname()]


def test_dies_with_its_shim(machine: Machine) -> None:
    config = machine.config("sleep", "60")
    reader, writer = os.pipe()
    shim = os.fork()
    if shim == 0:
        try:
            spawned = spawn(config, Stdio())
            spawned.go()
            os.write(writer, str(spawned.pid).encode())
            time.sleep(60)
        finally:
            os._exit(1)
    os.close(writer)
    pidfd = os.pidfd_open(int(os.read(reader, 20)))
    os.kill(shim, signal.SIGKILL)
    os.waitpid(shim, 0)
    assert select.select([pidfd], [], [], 5)[0]
    os.close(pidfd)
    os.close(reader)
    machine.tree.open(config.cgroup).remove()


# A further process


def test_exec_shares_everything(machine: Machine) -> None:
    config = machine.config("sleep", "60", process={"cwd": "/tmp"})
    with started(config) as (spawned, _):
        kinds = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
        script = "pwd; for k in " + " ".join(kinds) + "; do readlink /proc/self/ns/$k; done; exit 3"
        result = execute(config, spawned, "sh", "-c", script)
        assert result.lines == ["/tmp", *(os.readlink(f"/proc/{spawned.pid}/ns/{kind}") for kind in kinds)]
        assert result.code == 3
        assert os.readlink("/proc/self/ns/pid") == os.readlink("/proc/self/ns/pid_for_children")


def test_exec_is_confined_and_counted(machine: Machine) -> None:
    config = machine.config("sleep", "60")
    with started(config) as (spawned, _):
        result = execute(
            config, spawned, "sh", "-c", "grep -E 'Seccomp:|CapBnd|NSpid' /proc/self/status; unshare -m"
        )
        assert "Seccomp:\t2" in result.lines
        assert "not permitted" in result.output
        with entered(config, spawned, "sleep", "60") as (inside, _):
            assert inside.pid in spawned.cgroup.pids()
            os.kill(inside.pid, signal.SIGKILL)
            os.waitpid(inside.pid, 0)


def test_exec_as_user_with_terminal(machine: Machine) -> None:
    config = machine.config("sleep", "60")
    with started(config) as (spawned, _):
        result = execute(config, spawned, "sh", "-c", "id -un; tty; echo $HOME", user="bob", tty=True)
        assert result.lines == ["bob", "/dev/pts/0", "/home/bob"]


@pytest.mark.parametrize(
    ("argv", "fields", "code", "message"),
    [
        (("nothing",), {}, 127, "executable file not found"),
        (("true",), {"cwd": "/nowhere"}, 127, 'chdir to cwd ."/nowhere". set in config.json failed'),
        (("true",), {"user": "nobody-here"}, 125, "unable to find user"),
    ],
)
def test_exec_fails(
    machine: Machine, argv: tuple[str, ...], fields: dict[str, Any], code: int, message: str
) -> None:
    config = machine.config("sleep", "60")
    with started(config) as (spawned, _):
        with pytest.raises(StartFailed, match=message) as failure:
            execute(config, spawned, *argv, **fields)
        assert failure.value.container_exit == code


def test_on_a_v2_tree(machine: Machine) -> None:
    """PID 1 and exec'd processes are born in their cgroup, and see only it."""
    mountpoint = next(
        (p for p in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified") if Path(p, "cgroup.type").exists()), ""
    )
    if not mountpoint or machine.base.version == 2:
        pytest.skip("no v2 tree beside v1")
    directory = Path(mountpoint, f"hawse-test-{os.getpid()}")
    directory.mkdir()
    base = Base(version=2, hierarchies={"unified": str(directory)})
    config = machine.config("sh", "-c", "mknod /loop c 10 237; cat /loop; exec sleep 60")
    config = replace(config, cgroup_base=codec.dumps(base))
    with started(config) as (spawned, output):
        assert os.read(output, 1000) == b"cat: can't open '/loop': Operation not permitted\n"
        result = execute(config, spawned, "cat", "/sys/fs/cgroup/cgroup.procs")
        assert result.lines[0] == "1"
        assert len(result.lines) == 2
        tracing = replace(config.process, capabilities=(*config.process.capabilities, "CAP_SYS_PTRACE"))
        beside = machine.config(
            "cat", "/proc/1/comm", "/proc/self/cgroup", pid_namespace=machine.as_donor(config, spawned.pid)
        )
        said = run(replace(beside, cgroup_base=codec.dumps(base)))
        assert said.lines[0] == "sleep" and "0::/" in said.lines
        again = replace(config, process=tracing)  # enters by itself: it is not born inside
        result = execute(again, spawned, "cat", "/proc/self/cgroup")
        assert "0::/" in result.lines
    directory.rmdir()
