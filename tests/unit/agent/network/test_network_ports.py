import pytest

from hawse_agent.errors import InputError, NotSupported
from hawse_agent.network import ports
from hawse_agent.spec.container import PortMap


def test_what_is_exposed_is_published_too_unless_it_is_named() -> None:
    named = (PortMap(container_port=80, host_port=8080),)
    found = ports.wanted(named, ("80/tcp", "53/udp", "90-91", "53/udp"))
    assert [(p.protocol, p.container_port, p.host_port) for p in found] == [
        ("tcp", 80, 8080),
        ("udp", 53, 0),
        ("tcp", 90, 0),
        ("tcp", 91, 0),
    ]


@pytest.mark.parametrize(
    ("text", "error"), [("x/tcp", InputError), ("80/sctp", NotSupported), ("-/udp", InputError)]
)
def test_exposed_ports_that_are_refused(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        ports.wanted((), (text,))


@pytest.mark.parametrize(
    ("port", "error"),
    [
        (PortMap(container_port=0), InputError),
        (PortMap(container_port=1, host_port=65536), InputError),
        (PortMap(container_port=1, host_ip="::"), NotSupported),
        (PortMap(container_port=1, host_ip="web1"), InputError),
    ],
)
def test_ports_that_cannot_be_published(port: PortMap, error: type[Exception]) -> None:
    with pytest.raises(error):
        ports.check(port)
