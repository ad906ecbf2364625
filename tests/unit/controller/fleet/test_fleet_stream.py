from collections import deque

import pytest

from hawse.fleet.stream import MAGIC, NoAgent, parse_preamble, read_preamble
from hawse.ssh.connection import SEND_TIMEOUT, Process
from hawse_agent.errors import ProtocolError, Unreachable


class Said(Process):
    """A process that says these pieces and ends, or goes silent at None."""

    def __init__(self, *pieces: bytes | None, stderr: bytes = b"", code: int = 0) -> None:
        self.pieces = deque(pieces)
        self.errors = deque([stderr] if stderr else [])
        self.code = code

    def recv(self, size: int, timeout: float | None = None) -> bytes:
        piece = self.pieces.popleft() if self.pieces else b""
        if piece is None:
            raise TimeoutError
        return piece

    def _recv_stderr(self, size: int, timeout: float | None) -> bytes:
        return self.errors.popleft() if self.errors else b""

    def send(self, data: bytes, timeout: float | None = SEND_TIMEOUT) -> None:
        raise BrokenPipeError

    def close_stdin(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int:
        return self.code

    def close(self) -> None: ...


LINE = b'{"protocol":1,"version":"0.1.0","bundle":"abc","pid":7}\n'


@pytest.mark.parametrize(
    "pieces",
    [
        (MAGIC + LINE + b"HTTP",),
        (b"Welcome!\n\x00HAW\n", MAGIC, LINE, b"HTTP"),
        (b"noise" + MAGIC[:3], MAGIC[3:] + LINE[:10], LINE[10:] + b"HTTP"),
    ],
)
def test_noise_is_skipped(pieces: tuple[bytes, ...]) -> None:
    preamble, stream = read_preamble(Said(*pieces), 5, "web1")
    assert (preamble.version, preamble.bundle, preamble.pid) == ("0.1.0", "abc", 7)
    assert stream.recv() == b"HTTP"


def test_no_agent() -> None:
    with pytest.raises(NoAgent) as caught:
        read_preamble(Said(b"motd\n", stderr=b"sh: hawse-agent: not found\n", code=127), 5, "web1")
    assert (caught.value.code, caught.value.output) == (127, "sh: hawse-agent: not found")


def test_silence() -> None:
    with pytest.raises(Unreachable, match="web1: the agent gave no answer") as caught:
        read_preamble(Said(b"motd", None), 5, "web1")
    assert caught.value.stage == "agent"


def test_endless_noise() -> None:
    with pytest.raises(ProtocolError, match="without end"):
        read_preamble(Said(*[b"x" * 40_000] * 3), 5, "web1")


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b'{"protocol":"x","version":"1"}', b"\xff"])
def test_broken_preamble(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="preamble"):
        parse_preamble(line, "web1")
