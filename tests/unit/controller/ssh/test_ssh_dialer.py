import socket
import time
from collections.abc import Iterator

import pytest

from hawse.ssh import dialer
from hawse_agent.errors import Unreachable


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def port_of(server: socket.socket) -> int:
    return int(server.getsockname()[1])


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return port_of(server)


def test_dial_tunes_the_socket(listener: socket.socket) -> None:
    with dialer.dial("127.0.0.1", port_of(listener), resolve_timeout=5, connect_timeout=5) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getblocking()


def test_the_next_address_is_tried(listener: socket.socket) -> None:
    addresses: list[dialer.Address] = [
        (socket.AF_INET6, ("::1", closed_port())),
        (socket.AF_INET, ("127.0.0.1", closed_port())),
        (socket.AF_INET, ("127.0.0.1", port_of(listener))),
    ]
    with dialer.connect(addresses, "web1", 22, 5) as sock:
        assert sock.getpeername() == listener.getsockname()


def test_refused_names_the_stage() -> None:
    with pytest.raises(Unreachable, match="refused") as caught:
        dialer.dial("127.0.0.1", closed_port(), resolve_timeout=5, connect_timeout=5)
    assert caught.value.stage == "tcp"


def test_silence_ends_with_the_timeout() -> None:
    with socket.socket() as full:  # a listener whose queue is full answers nothing
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        start = time.monotonic()
        with pytest.raises(Unreachable, match=r"no answer within 0\.3 s"):
            dialer.dial("127.0.0.1", port_of(full), resolve_timeout=5, connect_timeout=0.3)
        assert 0.2 < time.monotonic() - start < 30
        for filler in fillers:
            filler.close()


def test_unknown_name() -> None:
    with pytest.raises(Unreachable) as caught:
        dialer.resolve("no-such-host.invalid", 22, 5)
    assert caught.value.stage == "dns"


def test_slow_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: time.sleep(1))
    with pytest.raises(Unreachable, match=r"not resolved within 0\.05 s"):
        dialer.resolve("slow.example.com", 22, 0.05)


def test_families_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    six, four = socket.AF_INET6, socket.AF_INET
    answer = [
        (six, 1, 6, "", ("a",)),
        (six, 1, 6, "", ("b",)),
        (four, 1, 6, "", ("c",)),
        (six, 1, 6, "", ("a",)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: answer)
    assert [address[1][0] for address in dialer.resolve("web1", 22, 5)] == ["a", "c", "b"]
