import time
from collections.abc import Iterator

import pytest

from hawse.ssh.connection import Process, start_sudo
from hawse.ssh.local import LocalConnection
from hawse.ssh.target import Target
from hawse_agent.errors import Unreachable


@pytest.fixture
def here() -> LocalConnection:
    return LocalConnection(Target(name="here", connection="local"))


def test_streams_and_status(here: LocalConnection) -> None:
    done = here.run("cat; echo error >&2; exit 3", input=b"input")
    assert (done.code, done.stdout, done.stderr) == (3, b"input", b"error\n")


def test_much_both_ways_at_once(here: LocalConnection) -> None:
    pieces = (b"x" * 100_000 for _ in range(30))
    done = here.run("tee /dev/stderr", input=pieces)
    assert len(done.stdout) == 3_000_000 and len(done.stderr) == 64 * 1024  # only the end of stderr is kept


def test_a_command_that_reads_nothing(here: LocalConnection) -> None:
    assert here.run("exit 0", input=b"x" * 1_000_000).code == 0


def test_a_signal_is_128_and_its_number(here: LocalConnection) -> None:
    assert here.run("kill -9 $$").code == 137


def test_timeout(here: LocalConnection) -> None:
    start = time.monotonic()
    with pytest.raises(Unreachable, match="longer than"):
        here.run("exec cat", input=_endless(), timeout=0.2)
    assert time.monotonic() - start < 60


def test_broken_input_is_raised(here: LocalConnection) -> None:
    with pytest.raises(RuntimeError, match="no more"):
        here.run("exec cat >/dev/null", input=_breaking())


def _endless() -> Iterator[bytes]:
    while True:
        yield b""
        time.sleep(0.01)


def _breaking() -> Iterator[bytes]:
    yield b"some"
    raise RuntimeError("no more")


class FakeSudo(LocalConnection):
    """Runs a shell function in place of sudo."""

    def __init__(self, script: str, password: str = "") -> None:
        super().__init__(Target(name="web1", connection="local", become_password=password))
        self._script = script

    def open(self, command: str) -> Process:
        return super().open(f"sudo() {{ {self._script}; }}; {command.replace('exec env LC_ALL=C ', '')}")


ASK = 'printf %s "$3" >&2; read -r line; if [ "$line" = secret ]; then shift 6; "$@"; else {again}; fi'


def test_sudo_with_password_leaves_stdin_alone() -> None:
    connection = FakeSudo(ASK.format(again="exit 1"), "secret")
    with start_sudo(connection, "echo early >&2; cat") as process:
        process.send(b"data")
        process.close_stdin()
        assert (process.recv(100), process.wait(5)) == (b"data", 0)
        assert process.recv_stderr(100) == b"early\n"


@pytest.mark.parametrize(
    ("script", "password", "reason"),
    [
        (ASK.format(again='printf %s "$3" >&2; cat'), "wrong", "the password is wrong"),
        (
            ASK.format(again="echo 'sudo: 1 incorrect password attempt' >&2; exit 1"),
            "wrong",
            "password is wrong",
        ),
        ("echo 'sudo: a password is required' >&2; return 1", "", "a password is required"),
        ("echo 'deploy is not in the sudoers file.' >&2; return 1", "", "not in the sudoers"),
        ("return 127", "", "no answer"),
    ],
)
def test_sudo_refuses(script: str, password: str, reason: str) -> None:
    with pytest.raises(Unreachable, match=reason) as caught:
        start_sudo(FakeSudo(script, password), "id")
    assert caught.value.stage == "sudo"
    assert "secret" not in str(caught.value)
