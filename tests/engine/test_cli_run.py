"""`hawse run`, `create`, `start`, `attach`, `exec` as a person types them, on this machine's agent."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]

PATIENCE = 60.0
HAWSE = (sys.executable, "-m", "hawse")


def environment(agent: AgentUnderTest) -> dict[str, str]:
    home = str(agent.root)
    return {"PATH": os.environ["PATH"], "HOME": home, "HAWSE_HOME": home, "HAWSE_SOCKET": str(agent.socket)}


def hawse(
    agent: AgentUnderTest, command: str, *, code: int = 0, input: bytes = b"", **variables: str
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [*HAWSE, *shlex.split(command)],
        env={**environment(agent), **variables},
        input=input,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, (done.stdout, done.stderr)
    return done


def out(agent: AgentUnderTest, command: str, *, input: bytes = b"", **variables: str) -> str:
    return hawse(agent, command, input=input, **variables).stdout.decode().strip()


_begun: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def _none_stays_behind(agent: AgentUnderTest) -> Iterator[None]:
    """Of what `begin` has begun, when a test fails half-way."""
    yield
    while _begun:
        process = _begun.pop()
        if process.poll() is None:
            process.kill()
            process.wait()


def begin(agent: AgentUnderTest, command: str, **streams: int) -> subprocess.Popen[bytes]:
    """In the background, with nothing of this terminal."""
    words = [*HAWSE, *shlex.split(command)]
    process = subprocess.Popen(words, env=environment(agent), start_new_session=True, **streams)
    _begun.append(process)
    return process


class Screen:
    """A terminal that a command runs on."""

    def __init__(self, agent: AgentUnderTest, command: str, rows: int = 24, columns: int = 80) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (rows, columns))
        self.seen = b""
        self._process = begin(agent, command, stdin=theirs, stdout=theirs, stderr=theirs)
        self._theirs = theirs
        self._before = termios.tcgetattr(theirs)

    def type(self, text: bytes) -> None:
        os.write(self._ours, text)

    def until(self, wanted: bytes) -> bytes:
        """What is shown up to and with `wanted`."""
        deadline = time.monotonic() + PATIENCE
        while wanted not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self._ours], [], [], 1)[0]:
                self.seen += os.read(self._ours, 4096)
        shown, found, self.seen = self.seen.partition(wanted)
        return shown + found

    def resize(self, rows: int, columns: int) -> None:
        termios.tcsetwinsize(self._ours, (rows, columns))
        self._process.send_signal(signal.SIGWINCH)

    def end(self) -> int:
        """Its exit code; the terminal must be as it was."""
        code = self._process.wait(PATIENCE)
        assert termios.tcgetattr(self._theirs) == self._before
        os.close(self._theirs)
        os.close(self._ours)
        return code


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def state(agent: AgentUnderTest, name: str) -> str:
    return str(agent.client.containers.get(name).status)


def test_run_gives_output_and_exit_code(agent: AgentUnderTest) -> None:
    done = hawse(agent, f"run --rm {BUSYBOX} sh -c 'echo out; echo err >&2; exit 7'", code=7)
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
    assert agent.client.containers.list(all=True) == []
    assert b"executable file not found" in hawse(agent, f"run --rm {BUSYBOX} nosuch", code=127).stderr
    assert b"is a directory" in hawse(agent, f"run --rm {BUSYBOX} /etc", code=126).stderr
    hawse(agent, f"run --rm {BUSYBOX} sh -c 'sleep 1000 & kill -9 $!; wait $!'", code=137)
    assert agent.client.containers.list(all=True) == []


def test_what_keeps_a_container_from_running_is_125(agent: AgentUnderTest) -> None:
    assert b"--gpus is not supported by hawse" in hawse(agent, f"run --gpus all {BUSYBOX}", code=125).stderr
    assert b"unknown flag: --nosuch" in hawse(agent, f"run --nosuch {BUSYBOX}", code=125).stderr
    assert b"unknown flag: --nosuch" in hawse(agent, f"create --nosuch {BUSYBOX}", code=125).stderr
    assert b"platform windows/amd64 is not supported" in (
        hawse(agent, f"run --platform windows/amd64 {BUSYBOX}", code=125).stderr
    )
    assert b"needs to be an absolute path" in hawse(agent, f"run -w relative {BUSYBOX}", code=125).stderr
    done = hawse(agent, "run --pull never nosuch:1 true", code=125)
    assert b"No such image: nosuch:1" in done.stderr and b"Unable to find" not in done.stderr
    assert b"the input device is not a TTY" in hawse(agent, f"run -it {BUSYBOX}", code=125).stderr
    hawse(agent, f"create --name one {BUSYBOX}")
    assert b"is already in use" in hawse(agent, f"run --name one {BUSYBOX}", code=125).stderr
    assert b"is already in use" in hawse(agent, f"create --name one {BUSYBOX}", code=1).stderr


def test_images_are_fetched(agent: AgentUnderTest, pushed: str) -> None:
    """When they are missing, and when they always shall be; what is said of it goes to stderr."""
    done = hawse(agent, f"run --rm {pushed} echo ran")
    assert done.stdout == b"ran\n"
    assert done.stderr.startswith(f"Unable to find image '{pushed}' locally\n".encode())
    assert b"Pull complete" in done.stderr
    assert hawse(agent, f"run --rm {pushed} echo ran").stderr == b""
    done = hawse(agent, f"run --rm --pull always {pushed} echo ran")
    assert done.stdout == b"ran\n" and b"Image is up to date" in done.stderr
    assert hawse(agent, f"run --rm --pull always -q {pushed} echo ran").stderr == b""
    agent.client.images.remove(pushed)
    failed = hawse(agent, f"run --rm {pushed}-not true", code=125).stderr
    assert b"Unable to find image" in failed and b"not found" in failed
    assert agent.client.containers.list(all=True) == []


def test_words_after_the_image_are_the_commands(agent: AgentUnderTest) -> None:
    assert out(agent, f"run --rm --entrypoint echo {BUSYBOX} -x --rm -- -e") == "-x --rm -- -e"


def test_detached(agent: AgentUnderTest, tmp_path: Path) -> None:
    kept = tmp_path / "id"
    identity = out(agent, f"run -d --name one --cidfile {kept} {BUSYBOX} sleep 1000")
    assert identity == agent.client.containers.get("one").id == kept.read_text()
    done = hawse(agent, f"run -d --cidfile {kept} {BUSYBOX} true", code=125)
    assert b"container ID file found" in done.stderr and kept.read_text() == identity
    other = tmp_path / "other"
    hawse(agent, f"run -d --cidfile {other} --pull never nosuch:1", code=125)
    assert not other.exists()
    hawse(agent, f"run -d -a stdout {BUSYBOX}", code=125)


def test_options_reach_the_container(agent: AgentUnderTest, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("FILE=f\nA=0\n")
    script = "cat /etc/hostname; id -u; pwd; echo $FILE$A$OWN; ulimit -n; grep CapEff /proc/self/status"
    said = out(
        agent,
        f"run --rm --hostname named -u 1000 -w /tmp --env-file {tmp_path}/env -e A=1 -e OWN"
        f" --ulimit nofile=128 --cap-drop ALL --read-only --tmpfs /t {BUSYBOX} sh -c '{script}'",
        OWN="own",
    ).splitlines()
    assert said[:5] == ["named", "1000", "/tmp", "f1own", "128"]
    assert said[5].split() == ["CapEff:", "0000000000000000"]


def test_a_seccomp_profile_is_read_here(agent: AgentUnderTest, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"],'
        ' "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}'
    )
    done = hawse(agent, f"run --rm --security-opt seccomp={profile} {BUSYBOX} mkdir /x", code=1)
    assert b"Operation not supported" in done.stderr


def test_stdin(agent: AgentUnderTest) -> None:
    """Binary, to its end, and after it the process goes on: its side is closed, not the connection."""
    data = bytes(range(256)) * 4000 + b"\x10\x11"
    assert hawse(agent, f"run --rm -i {BUSYBOX} cat", input=data).stdout == data
    counted = hawse(agent, f"run --rm -i {BUSYBOX} sh -c 'wc -c; echo after'", input=data).stdout.split()
    assert counted == [str(len(data)).encode(), b"after"]
    assert hawse(agent, f"run --rm {BUSYBOX} cat", input=data).stdout == b""
    assert hawse(agent, f"run --rm -i -a stdin -a stderr {BUSYBOX} wc -c", input=b"x").stdout == b""


def test_a_terminal(agent: AgentUnderTest) -> None:
    screen = Screen(agent, f"run --rm -it {BUSYBOX} sh -c 'stty size; exec sh'", 33, 99)
    assert b"33 99" in screen.until(b"# ")  # from its first moment
    screen.resize(40, 100)
    until(lambda: _answers(screen, b"stty size\n", b"40 100"))
    screen.type(b"tty; exit 4\n")
    screen.until(b"/dev/pts/0")
    assert screen.end() == 4


def _answers(screen: Screen, typed: bytes, wanted: bytes) -> bool:
    screen.type(typed)
    return wanted in screen.until(b"# ")


def test_detach_keys_leave_it_running(agent: AgentUnderTest) -> None:
    screen = Screen(agent, f"run --name one -it {BUSYBOX} sh")
    screen.until(b"# ")
    screen.type(b"\x10\x11")
    assert screen.end() == 0
    assert state(agent, "one") == "running"

    screen = Screen(agent, "attach --detach-keys ctrl-x,x one")
    screen.type(b"echo $((40 + 2))\n")
    screen.until(b"42")
    screen.type(b"\x10\x11\x18x")
    assert screen.end() == 0
    assert state(agent, "one") == "running"

    screen = Screen(agent, "exec -it one sh")
    screen.until(b"# ")
    screen.type(b"\x10\x11")
    assert screen.end() == 0
    agent.client.containers.get("one").remove(force=True)


def test_signals_are_passed_on(agent: AgentUnderTest) -> None:
    script = 'trap "echo got; exit 5" TERM; echo ready; while :; do sleep 0.1; done'
    process = begin(agent, f"run --rm {BUSYBOX} sh -c '{script}'", stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == b"got\n"
    assert process.wait(PATIENCE) == 5


def test_without_sig_proxy_only_the_client_ends(agent: AgentUnderTest) -> None:
    command = f"run --name one --sig-proxy=false {BUSYBOX} sh -c 'echo ready; exec sleep 1000'"
    process = begin(agent, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    assert state(agent, "one") == "running"
    agent.client.containers.get("one").remove(force=True)


def test_create_and_start(agent: AgentUnderTest) -> None:
    identity = out(agent, f"create --name one -i {BUSYBOX} sh -c 'cat; exit 3'")
    assert identity == agent.client.containers.get("one").id
    assert state(agent, "one") == "created"
    done = hawse(agent, f"start -ai {identity[:12]}", code=3, input=b"typed")
    assert done.stdout == b"typed"
    hawse(agent, f"create --name two {BUSYBOX} sleep 1000")
    done = hawse(agent, "start nosuch two", code=1)
    assert (done.stdout, done.stderr) == (b"two\n", b"No such container: nosuch\n")
    assert state(agent, "two") == "running"
    assert out(agent, "start two") == "two"
    agent.client.containers.get("two").remove(force=True)


def test_ctrl_c_ends_what_does_not_handle_it(agent: AgentUnderTest) -> None:
    """Also PID 1, which the kernel would spare: a signal without a terminal, a key with one."""
    hawse(agent, f"run -d --name sleeper {BUSYBOX} sleep 1000")
    process = begin(agent, "attach sleeper", stdin=subprocess.DEVNULL)
    until(lambda: _attached(agent, "sleeper") == 1)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    assert _exit_code(agent, "sleeper") == 130

    hawse(agent, f"run -dit --name typist {BUSYBOX} sh -c 'echo ready; sleep 1000; echo never'")
    screen = Screen(agent, "attach typist")
    until(lambda: _attached(agent, "typist") == 1)
    screen.type(b"\x03")
    assert screen.end() == 130
    assert _exit_code(agent, "typist") == 130
    assert b"never" not in screen.seen


def test_ctrl_c_is_its_own_business_of_what_handles_it(agent: AgentUnderTest) -> None:
    script = 'trap "echo got" INT; echo ready; while ! [ -e /end ]; do sleep 0.1; done; exit 3'
    process = begin(agent, f"run --name one {BUSYBOX} sh -c '{script}'", stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == b"got\n"
    hawse(agent, "exec one touch /end")
    assert process.wait(PATIENCE) == 3

    screen = Screen(agent, f"run --name two -it {BUSYBOX} sh")
    screen.until(b"# ")
    screen.type(b"echo unfin\x03echo $((40 + 2))\n")  # a shell drops the line
    screen.until(b"42")
    screen.type(b"stty raw; head -c 1 | od -An -tx1; exit 5\n")
    screen.until(b"exit 5")
    until(lambda: b"-isig" in hawse(agent, "exec two stty -a -F /dev/console").stdout)
    screen.type(b"\x03")  # a byte like another
    screen.until(b"03")
    assert screen.end() == 5


def _exit_code(agent: AgentUnderTest, name: str) -> int:
    return int(agent.client.containers.get(name).wait()["StatusCode"])


def test_attach(agent: AgentUnderTest) -> None:
    """Two at once, on a container that an earlier daemon has started; both see its end."""
    script = "read x; echo got $x; exit 6"
    hawse(agent, f"run -d -i --name one {BUSYBOX} sh -c '{script}'")
    agent.kill()
    agent.start()
    watching = begin(agent, "attach --no-stdin one", stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    until(lambda: _attached(agent, "one") == 1)
    typing = begin(agent, "attach one", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert typing.stdin is not None
    typing.stdin.write(b"it\n")  # and no end: who closes his side is let go
    typing.stdin.flush()
    for process in (typing, watching):
        assert process.stdout is not None and process.stdout.read() == b"got it\n"
        assert process.wait(PATIENCE) == 6
    assert b"cannot attach to a stopped container" in hawse(agent, "attach one", code=1).stderr


def test_a_daemon_that_is_replaced_under_an_attached_client(agent: AgentUnderTest) -> None:
    script = "echo ready; while ! [ -e /end ]; do sleep 0.1; done; echo over; exit 6"
    process = begin(agent, f"run --name one {BUSYBOX} sh -c '{script}'", stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    agent.kill()
    agent.start()
    hawse(agent, "exec one touch /end")
    assert process.stdout.readline() == b"over\n"
    assert process.wait(PATIENCE) == 6


def _attached(agent: AgentUnderTest, name: str) -> int:
    """How many have attached, by the events of the daemon that runs."""
    now = int(time.time())
    events = agent.client.api.events(since=now - 600, until=now + 1, decode=True, filters={"event": "attach"})
    return sum(event["Actor"]["Attributes"]["name"] == name for event in events)


def test_exec(agent: AgentUnderTest) -> None:
    hawse(agent, f"run -d --name one -e A=1 -e B=1 -w /tmp {BUSYBOX} sleep 1000")
    assert out(agent, "exec one sh -c 'echo $A $PWD'") == "1 /tmp"
    script = "sh -c 'echo ${A-none} $B; id -un; pwd'"
    assert out(agent, f"exec -e A -eB=2 -u bob -w / one {script}").splitlines() == ["none 2", "bob", "/"]
    assert out(agent, "exec -i one cat", input=b"typed") == "typed"
    hawse(agent, "exec one sh -c 'exit 9'", code=9)
    hawse(agent, "exec one nosuch", code=127)
    hawse(agent, "exec -d one sh -c 'echo yes > /made; exec sleep 1000'")
    until(lambda: hawse(agent, "exec one sh -c 'cat /made || true'").stdout == b"yes\n")
    eff = "sh -c 'grep CapEff /proc/self/status'"
    assert out(agent, f"exec one {eff}").split()[1] == "00000000a80425fb"
    assert out(agent, f"exec --privileged one {eff}").split()[1] > "00000000a80425fb"
    assert b"No such container: nosuch" in hawse(agent, "exec nosuch ls", code=1).stderr
    agent.client.containers.get("one").remove(force=True)


@pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker CLI")
def test_as_dockers_own_client(agent: AgentUnderTest) -> None:
    """The same words, the same exit code and output."""
    hawse(agent, f"run -d --name host {BUSYBOX} sleep 1000")
    hawse(agent, f"create --name made {BUSYBOX} true")
    for words in (
        f"run --rm {BUSYBOX} sh -c 'echo out; echo err >&2; exit 3'",
        f"run --rm -w /new/dir {BUSYBOX} pwd",
        f"run --rm -u nosuch {BUSYBOX} true",
        f"run --rm -v /dev/null:/etc/passwd/x {BUSYBOX} true",
        f"run --rm --network nosuch --pull never {BUSYBOX} true",
        f"run --rm --entrypoint '' {BUSYBOX}",
        f"run --rm -t {BUSYBOX} sh -c 'test -t 1 && stty size'",
        f"run --rm -a stderr {BUSYBOX} sh -c 'echo out; echo err >&2'",
        f"run --name host {BUSYBOX} true",
        f"create --name host {BUSYBOX} true",
        "create --pull never nosuch:1",
        "start nosuch",
        "start made nosuch",
        "start -a made",
        "attach made",
        "attach nosuch",
        "exec host sh -c 'exit 9'",
        "exec host nosuch",
        "exec -u nosuch host true",
        "exec -w /nosuch host true",
        "exec made true",
        "exec -t host sh -c 'test -t 1 && echo terminal'",
        "exec -d host true",
        "run --nosuch",
    ):
        theirs = agent.docker(*shlex.split(words), code=None)
        ours = subprocess.run(
            [*HAWSE, *shlex.split(words)],
            env=environment(agent),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        said = ours.stdout.decode().replace("\r\n", "\n")  # as theirs were read
        assert (words, ours.returncode, said) == (words, theirs.returncode, theirs.stdout)
