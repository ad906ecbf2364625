"""Networks in a real kernel: two instances' worth of bridges, ports, names, and what repair finds.

A container is a network namespace that a thread has made; its programs are sockets of this process.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import pytest
from tests.support import isolation

from hawse_agent.errors import Conflict, HostRefused, InputError
from hawse_agent.linux.namespace import CLONE_NEWNET, unshare
from hawse_agent.network import dns_packets, links, namespaces, netlink
from hawse_agent.network.manager import NetworkManager, NetworkObservation, Place
from hawse_agent.paths import Paths, paths_for
from hawse_agent.spec.container import EndpointSpec, PortMap
from hawse_agent.spec.network import NetworkSpec
from hawse_agent.spec.records import NetworkRecord, PortRecord

pytestmark = pytest.mark.skipif(isolation.current() is None, reason="needs a session of its own (root)")

T = TypeVar("T")
OUTSIDE = "10.99.0.2"
HOST = "10.99.0.1"


def in_thread(call: Callable[[], T]) -> T:
    """Run it in a thread of its own, whose namespaces nobody else has."""
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def new_namespace() -> int:
    def make() -> int:
        unshare(CLONE_NEWNET)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return in_thread(make)


@dataclass(kw_only=True)
class Namespace:
    fd: int
    servers: list[socket.socket] = field(default_factory=list)

    def close(self) -> None:
        for server in self.servers:
            with contextlib.suppress(OSError):  # ENOTCONN for datagrams, and yet it ends the waiting
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        os.close(self.fd)

    def run(self, call: Callable[[], T]) -> T:
        def inside() -> T:
            with namespaces.entered(self.fd):
                return call()

        return in_thread(inside)

    def serve(self, port: int, answer: bytes, *, udp: bool = False) -> socket.socket:
        """Every client gets `answer` and its own address as the server sees it."""
        kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
        sock = self.run(lambda: socket.socket(socket.AF_INET, kind))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("0.0.0.0", port))
        self.servers.append(sock)

        def answer_all() -> None:
            with contextlib.suppress(OSError):
                if not udp:
                    sock.listen()
                while True:
                    if udp:
                        question, peer = sock.recvfrom(100)
                        if not question:
                            return
                        sock.sendto(answer + b" " + peer[0].encode(), peer)
                    else:
                        connection, peer = sock.accept()
                        with connection:
                            connection.sendall(answer + b" " + peer[0].encode())

        if not udp:
            sock.listen()
        threading.Thread(target=answer_all, daemon=True).start()
        return sock

    def ask(self, address: str, port: int, *, udp: bool = False, timeout: float = 2.0) -> str:
        return self.run(lambda: ask(address, port, udp=udp, timeout=timeout))

    def dns(self, name: str, kind: int = dns_packets.TYPE_A, *, stream: bool = False) -> bytes:
        return self.run(lambda: dns_exchange(name, kind, stream=stream))

    def addresses(self, name: str) -> list[str]:
        return records(self.dns(name))


def ask(address: str, port: int, *, udp: bool = False, timeout: float = 2.0) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout)
        sock.connect((address, port))
        if udp:
            sock.send(b"?")
        return sock.recv(100).decode()


def dns_exchange(name: str, kind: int, *, stream: bool) -> bytes:
    query = dns_packets.query(name, kind, ident=77)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as sock:
        sock.settimeout(8)
        sock.connect(("127.0.0.11", 53))
        sock.send(len(query).to_bytes(2, "big") + query if stream else query)
        answer = sock.recv(4096)
    return answer[2:] if stream else answer


def records(answer: bytes) -> list[str]:
    count = int.from_bytes(answer[6:8], "big")
    tail = answer[len(answer) - 16 * count :]
    return [socket.inet_ntoa(tail[i * 16 + 12 : i * 16 + 16]) for i in range(count)]


@dataclass(kw_only=True)
class Site:
    """An instance: its manager, and the containers put on its networks."""

    manager: NetworkManager
    paths: Paths
    networks: dict[str, NetworkRecord]
    places: dict[str, list[Place]]
    namespaces: list[Namespace]
    ports: list[PortRecord]
    reserved: list[int]
    servers: list[subprocess.Popen[bytes]]

    def network(self, spec: NetworkSpec) -> NetworkRecord:
        record = self.manager.plan_network(spec, list(self.networks.values()))
        record = replace(record, default=spec.name == "bridge")
        self.manager.ensure_base([record])
        self.manager.create(record)
        self.networks[record.name] = record
        return record

    def container(
        self, name: str, *wanted: str, ports: tuple[PortMap, ...] = (), aliases: tuple[str, ...] = ()
    ) -> Namespace:
        namespace = Namespace(fd=new_namespace())
        self.namespaces.append(namespace)
        container = (name.encode().hex() * 64)[:64]
        places = []
        for index, network_name in enumerate(wanted):
            network = self.networks[network_name]
            used = {
                endpoint.ipv4.split("/")[0]
                for places_of in self.places.values()
                for endpoint, other in places_of
                if other.id == network.id
            }
            endpoint = self.manager.plan_endpoint(
                network, used, EndpointSpec(network=network_name), index, container, (name, *aliases)
            )
            places.append((endpoint, network))
        dns = any(not network.default for _, network in places)
        if ports:
            planned, fds = self.manager.plan_ports(
                container, places[0][0].ipv4.split("/")[0], ports, (), self.ports
            )
            self.ports += planned
            self.reserved += fds
        self.manager.attach(namespace.fd, os.getpid(), places, dns=dns)
        if dns:
            self.manager.dns_update(container, places)
        self.manager.publish([port for port in self.ports if port.container == container])
        self.places[container] = places
        return namespace

    def address(self, name: str, index: int = 0) -> str:
        return self.places[(name.encode().hex() * 64)[:64]][index][0].ipv4.split("/")[0]

    def observe(self) -> NetworkObservation:
        endpoints = [endpoint for places in self.places.values() for endpoint, _ in places]
        return self.manager.observe(list(self.networks.values()), endpoints, self.ports)

    def start_dns(self, listener: socket.socket) -> None:
        code = (
            "import socket,sys\nfrom hawse_agent.network.dns import serve\n"
            f"serve(socket.socket(fileno={listener.fileno()}), sys.argv[1])"
        )
        self.servers.append(
            subprocess.Popen(
                [sys.executable, "-c", code, str(self.resolv_conf)], pass_fds=(listener.fileno(),)
            )
        )

    @property
    def resolv_conf(self) -> Path:
        return self.paths.lib / "resolv.conf"


@contextlib.contextmanager
def new_site(root: Path) -> Iterator[Site]:
    paths = paths_for(root)
    for directory in (paths.lib, paths.run):
        directory.mkdir(parents=True)
    # Assigned at once: the manager wants to know how to start a name server, and the site keeps them.
    site = Site(
        manager=None,  # type: ignore[arg-type]
        paths=paths,
        networks={},
        places={},
        namespaces=[],
        ports=[],
        reserved=[],
        servers=[],
    )
    site.resolv_conf.write_text("")
    site.manager = NetworkManager(paths, site.start_dns)
    site.manager.repair_firewall([], [])
    try:
        yield site
    finally:
        site.manager.remove_all()
        for namespace in site.namespaces:
            namespace.close()
        for fd in site.reserved:
            os.close(fd)
        for server in site.servers:
            server.kill()
            server.wait()


@pytest.fixture(scope="module", autouse=True)
def forwarding() -> Iterator[None]:
    """On before the first network turns it on: instances share it, so none turns it off again."""
    switch = Path("/proc/sys/net/ipv4/ip_forward")
    switch.write_text("1")
    yield
    switch.write_text("0")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with new_site(tmp_path / "a") as found:
        yield found


@pytest.fixture(scope="module")
def outside() -> Iterator[Namespace]:
    """Another machine: a namespace with a cable to this one."""
    namespace = Namespace(fd=new_namespace())
    link = f"/proc/{os.getpid()}/fd/{namespace.fd}"
    ip("link add cable0 type veth peer name cable1")
    subprocess.run(["ip", "link", "set", "cable1", "netns", link], check=True)
    ip(f"addr add {HOST}/24 dev cable0")
    ip("link set cable0 up")
    namespace.run(lambda: ip(f"addr add {OUTSIDE}/24 dev cable1"))
    namespace.run(lambda: ip("link set cable1 up"))
    namespace.run(lambda: ip("link set lo up"))
    yield namespace
    ip("link del cable0")
    namespace.close()


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


def nft(words: str) -> None:
    subprocess.run(["nft", words], check=True)


def test_containers_of_a_network_reach_each_other_and_the_outside(site: Site, outside: Namespace) -> None:
    site.network(NetworkSpec(name="shop"))
    web, db = site.container("web", "shop"), site.container("db", "shop")
    db.serve(6379, b"redis")
    outside.serve(80, b"world")

    assert web.ask(site.address("db"), 6379) == f"redis {site.address('web')}"
    assert web.ask(OUTSIDE, 80) == f"world {HOST}"  # masqueraded
    with pytest.raises(OSError):  # an unpublished port, by a route that leads to the container
        outside.run(lambda: ip(f"route add {site.networks['shop'].subnet} via {HOST}"))
        outside.ask(site.address("db"), 6379, timeout=0.3)


@pytest.fixture(params=(0, 1), ids=("bridged packets pass no firewall", "bridged packets pass it"))
def bridging(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both settings of br_netfilter, where the kernel has it."""
    setting = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    wanted = str(request.param)
    if not setting.exists():
        if wanted == "1":
            pytest.skip("br_netfilter is not loaded")
        yield
        return
    before = setting.read_text()
    setting.write_text(wanted)
    yield
    setting.write_text(before)


@pytest.mark.usefixtures("bridging")
def test_a_published_port_is_reached_from_everywhere(site: Site, outside: Namespace) -> None:
    site.network(NetworkSpec(name="shop"))
    site.network(NetworkSpec(name="other"))
    web = site.container("web", "shop", ports=(PortMap(container_port=80, host_port=8080),))
    neighbour, stranger = site.container("neighbour", "shop"), site.container("stranger", "other")
    web.serve(80, b"page")
    gateway = site.networks["shop"].gateway

    assert outside.ask(HOST, 8080) == f"page {OUTSIDE}"  # it sees who asks
    assert ask("127.0.0.1", 8080) == f"page {gateway}"
    assert ask(HOST, 8080) == f"page {HOST}"
    assert neighbour.ask(HOST, 8080) == f"page {gateway}"
    assert web.ask(HOST, 8080) == f"page {gateway}"  # itself
    assert stranger.ask(HOST, 8080).startswith("page ")
    assert stranger.ask(site.networks["other"].gateway, 8080).startswith("page ")
    with pytest.raises(OSError):  # networks are apart
        stranger.ask(site.address("web"), 80, timeout=0.3)
    with pytest.raises(ConnectionRefusedError), socket.socket(socket.AF_INET6) as six:
        six.settimeout(2)
        six.connect(("::1", 8080))


def test_a_port_of_one_address_is_only_there(site: Site, outside: Namespace) -> None:
    site.network(NetworkSpec(name="shop"))
    web = site.container(
        "web",
        "shop",
        ports=(
            PortMap(container_port=80, host_port=8081, host_ip="127.0.0.1"),
            PortMap(container_port=81, host_port=8082, host_ip=HOST),
        ),
    )
    web.serve(80, b"local")
    web.serve(81, b"cable")

    assert ask("127.0.0.1", 8081).startswith("local ")
    assert outside.ask(HOST, 8082) == f"cable {OUTSIDE}"
    for address in (HOST, site.networks["shop"].gateway):
        with pytest.raises(OSError):
            ask(address, 8081, timeout=0.3)
    with pytest.raises(OSError):
        ask("127.0.0.1", 8082, timeout=0.3)
    # The classic hole: a packet for 127.0.0.1 that comes in over the cable or from a container.
    for namespace, gateway, link in (
        (outside, HOST, "cable1"),
        (web, site.networks["shop"].gateway, "eth0"),
    ):
        namespace.run(
            lambda link=link: Path(f"/proc/sys/net/ipv4/conf/{link}/route_localnet").write_text("1")
        )
        namespace.run(lambda: ip("link set lo down"))
        namespace.run(lambda gateway=gateway: ip(f"route add 127.0.0.1/32 via {gateway}"))
        with pytest.raises(OSError):
            namespace.ask("127.0.0.1", 8081, timeout=0.3)
        namespace.run(lambda: ip("route del 127.0.0.1/32"))
        namespace.run(lambda: ip("link set lo up"))


def test_udp_goes_to_the_container_that_has_the_port_now(site: Site, outside: Namespace) -> None:
    site.network(NetworkSpec(name="shop"))
    with outside.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
        client.settimeout(2)
        client.connect((HOST, 5353))
        for name in ("first", "second"):
            _send(client)  # before it is published
            before = list(site.ports)
            namespace = site.container(
                name, "shop", ports=(PortMap(container_port=53, host_port=5353, protocol="udp"),)
            )
            namespace.serve(53, name.encode(), udp=True)
            _send(client)
            assert client.recv(100) == f"{name} {OUTSIDE}".encode()
            mine = [port for port in site.ports if port not in before]
            site.manager.unpublish(mine)
            site.ports = before
            for fd in site.reserved:
                os.close(fd)
            site.reserved.clear()


def _send(client: socket.socket) -> None:
    try:
        client.send(b"?")
    except ConnectionRefusedError:  # of a datagram sent while nobody was there
        client.send(b"?")


def test_a_taken_port_is_a_conflict(site: Site) -> None:
    site.network(NetworkSpec(name="shop"))
    site.container("web", "shop", ports=(PortMap(container_port=80, host_port=8080),))
    plan = site.manager.plan_ports
    clash = (PortMap(container_port=1, host_port=7), PortMap(container_port=80, host_port=8080))
    with pytest.raises(Conflict, match=r"Bind for 0\.0\.0\.0:8080 failed: port is already allocated"):
        plan("x", "172.30.0.9", clash, (), site.ports)
    with socket.socket() as free:
        free.bind(("0.0.0.0", 7))  # what was bound before the failure was given back
    with socket.create_server(("127.0.0.1", 0)) as server:
        busy = (PortMap(container_port=80, host_port=server.getsockname()[1]),)
        with pytest.raises(Conflict, match="address already in use"):
            plan("x", "172.30.0.9", busy, (), [])
    with pytest.raises(InputError, match="cannot assign"):
        plan("x", "172.30.0.9", (PortMap(container_port=1, host_ip="192.0.2.1"),), (), [])
    with pytest.raises(OSError), socket.socket() as other:  # nobody else gets a reserved port
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("0.0.0.0", 8080))
    records_of, fds = plan("x", "172.30.0.9", (), ("80/tcp", "90-91/udp"), [])
    assert [(r.protocol, r.container_port) for r in records_of] == [("tcp", 80), ("udp", 90), ("udp", 91)]
    assert all(record.host_port > 1023 for record in records_of)
    for fd in fds:
        os.close(fd)


def test_a_port_is_free_again_while_connections_linger(site: Site) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()  # this side goes to TIME_WAIT
            assert client.recv(1) == b""
    wanted = (PortMap(container_port=80, host_port=port),)
    _, fds = site.manager.plan_ports("x", "172.30.0.9", wanted, (), [])
    os.close(fds[0])


def test_an_internal_network_leads_nowhere(site: Site, outside: Namespace) -> None:
    site.network(NetworkSpec(name="vault", internal=True))
    site.network(NetworkSpec(name="shop"))
    one, two = site.container("one", "vault"), site.container("two", "vault")
    both = site.container("both", "vault", "shop")
    two.serve(80, b"two")
    outside.serve(82, b"world")

    assert one.ask(site.address("two"), 80).startswith("two ")
    with pytest.raises(OSError):
        one.ask(OUTSIDE, 82, timeout=0.3)
    one.run(lambda: ip(f"route add default via {site.networks['vault'].gateway}"))
    with pytest.raises(OSError):
        one.ask(OUTSIDE, 82, timeout=0.3)
    assert both.ask(OUTSIDE, 82).startswith("world ")
    assert one.addresses("both") == [site.address("both")]
    assert dns_packets.code(one.dns("example.org")) == dns_packets.SERVFAIL


@pytest.mark.usefixtures("bridging")
def test_without_icc_only_published_ports_are_reached(site: Site) -> None:
    site.network(NetworkSpec(name="apart", icc=False))
    one = site.container("one", "apart", ports=(PortMap(container_port=80, host_port=8088),))
    two = site.container("two", "apart")
    one.serve(80, b"one")
    with pytest.raises(OSError):
        two.ask(site.address("one"), 80, timeout=0.3)
    assert two.ask(site.networks["apart"].gateway, 8088).startswith("one ")
    assert one.ask(site.networks["apart"].gateway, 8088).startswith("one ")


def test_names_are_those_of_shared_networks(site: Site) -> None:
    site.network(NetworkSpec(name="shop"))
    site.network(NetworkSpec(name="other"))
    web = site.container("web", "shop", aliases=("www",))
    twin = site.container("twin", "shop", aliases=("www",))
    stranger = site.container("stranger", "other")

    assert twin.addresses("web") == twin.addresses("WEB.shop") == [site.address("web")]
    assert twin.addresses("web") == records(twin.dns("web", stream=True))
    both = {site.address("web"), site.address("twin")}
    answers = [web.addresses("www") for _ in range(4)]
    assert all(set(answer) == both for answer in answers)
    assert {answer[0] for answer in answers} == both  # in turn
    six = web.dns("twin", 28)
    assert (dns_packets.code(six), records(six)) == (dns_packets.NOERROR, [])
    assert dns_packets.code(stranger.dns("web")) == dns_packets.SERVFAIL  # and no server of the host to ask
    pointer = ".".join(reversed(site.address("web").split("."))) + ".in-addr.arpa"
    assert b"\x03web\x04shop\x00" in twin.dns(pointer, dns_packets.TYPE_PTR)

    site.manager.detach([endpoint for endpoint, _ in site.places[(b"twin".hex() * 64)[:64]]])
    site.manager.dns_forget((b"twin".hex() * 64)[:64])
    assert web.addresses("www") == [site.address("web")]


def test_other_names_are_asked_upstream(site: Site, outside: Namespace) -> None:
    site.network(NetworkSpec(name="shop"))
    web = site.container("web", "shop")
    server = outside.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    server.bind((OUTSIDE, 53))

    def answer() -> None:
        query, peer = server.recvfrom(512)
        question = dns_packets.parse(query)
        assert question is not None
        forged = dns_packets.with_id(dns_packets.addresses_answer(question, ["6.6.6.6"], limit=512), 0)
        if forged[:2] != query[:2]:
            server.sendto(forged, peer)
        server.sendto(dns_packets.addresses_answer(question, ["9.9.9.9"], limit=512), peer)

    thread = threading.Thread(target=answer)
    thread.start()
    # The first one refuses; the second answers.
    site.resolv_conf.write_text(f"# ours\nnameserver {HOST}\nnameserver {OUTSIDE}\n")
    assert web.addresses("example.org") == ["9.9.9.9"]
    thread.join()
    server.close()


def test_a_large_answer_is_fetched_upstream_by_tcp(site: Site, outside: Namespace) -> None:
    site.network(NetworkSpec(name="shop"))
    web = site.container("web", "shop")
    many = [f"9.9.9.{number}" for number in range(100)]
    udp, tcp = (
        outside.run(lambda kind=kind: socket.socket(socket.AF_INET, kind))
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
    )
    for sock in (udp, tcp):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((OUTSIDE, 53))
    tcp.listen()

    def answer() -> None:
        query, peer = udp.recvfrom(512)
        question = dns_packets.parse(query)
        assert question is not None
        udp.sendto(dns_packets.addresses_answer(question, many, limit=512), peer)
        connection, _ = tcp.accept()
        with connection:
            question = dns_packets.parse(connection.recv(512)[2:])
            assert question is not None
            whole = dns_packets.addresses_answer(question, many, limit=65535)
            framed = len(whole).to_bytes(2, "big") + whole
            for start in range(0, len(framed), 700):  # in pieces
                connection.send(framed[start : start + 700])

    thread = threading.Thread(target=answer)
    thread.start()
    site.resolv_conf.write_text(f"nameserver {OUTSIDE}\n")
    short = web.dns("example.org")
    assert short[2] & 0x02  # truncated: ask again by TCP
    assert records(web.dns("example.org", stream=True)) == many
    thread.join()
    udp.close()
    tcp.close()


def test_garbage_does_not_stop_the_name_server(site: Site) -> None:
    site.network(NetworkSpec(name="shop"))
    web, db = site.container("web", "shop"), site.container("db", "shop")

    def throw() -> None:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            for data in (b"", b"\0", os.urandom(600), b"\xff" * 3, b"\0\0" * 200):
                with socket.socket(socket.AF_INET, kind) as sock:
                    sock.connect(("127.0.0.11", 53))
                    sock.send(data)

    db.run(throw)
    assert web.addresses("db") == [site.address("db")]
    assert db.addresses("web") == [site.address("web")]
    assert len(site.servers) == 1


def test_many_start_at_once(site: Site) -> None:
    site.network(NetworkSpec(name="shop"))
    planning = threading.Lock()

    def start(number: int) -> Namespace:
        namespace = Namespace(fd=new_namespace())
        site.namespaces.append(namespace)
        container = f"{number:02x}" * 32
        with planning:  # as the engine does
            network = site.networks["shop"]
            endpoint = site.manager.plan_endpoint(
                network, set(), EndpointSpec(network="shop"), 0, container, (f"c{number}",)
            )
            ports, fds = site.manager.plan_ports(
                container, endpoint.ipv4.split("/")[0], (PortMap(container_port=80),), (), site.ports
            )
            site.ports += ports
            site.reserved += fds
        site.manager.attach(namespace.fd, os.getpid(), [(endpoint, network)], dns=True)
        site.manager.dns_update(container, [(endpoint, network)])
        site.manager.publish(ports)
        site.places[container] = [(endpoint, network)]
        return namespace

    with ThreadPoolExecutor(8) as pool:
        started = list(pool.map(start, range(24)))
    seen = site.observe()
    assert not (seen.links_lost or seen.ports_lost or seen.firewall_lost or seen.names_lost)
    assert len({place[0][0].ipv4 for place in site.places.values()}) == 24
    assert started[0].addresses("c23") == [site.places["17" * 32][0][0].ipv4.split("/")[0]]


def test_names_survive_the_daemon_and_come_back_after_the_name_server(site: Site) -> None:
    site.network(NetworkSpec(name="shop"))
    web, db = site.container("web", "shop"), site.container("db", "shop")
    again = NetworkManager(site.paths, site.start_dns)  # the next daemon
    again.repair_firewall(list(site.networks.values()), site.ports)
    site.manager = again
    assert site.observe().names_lost == frozenset()
    assert web.addresses("db") == [site.address("db")]
    assert len(site.servers) == 1

    site.servers[0].kill()
    site.servers[0].wait()
    assert site.observe().names_lost == set(site.places)
    for container, namespace in zip(site.places, (web, db), strict=True):
        with process_in(namespace) as pid:
            again.restore_names(container, pid, site.places[container])
    assert site.observe().names_lost == frozenset()
    assert web.addresses("db") == [site.address("db")]
    assert len(site.servers) == 2


@contextlib.contextmanager
def process_in(namespace: Namespace) -> Iterator[int]:
    argv = ["nsenter", f"--net=/proc/self/fd/{namespace.fd}", "sh", "-c", "echo; exec sleep 60"]
    with subprocess.Popen(argv, pass_fds=(namespace.fd,), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_what_is_lost_is_named_and_repaired(site: Site, outside: Namespace) -> None:
    site.network(NetworkSpec(name="bridge"))
    record = site.network(NetworkSpec(name="shop"))
    published = (
        PortMap(container_port=80, host_port=8080),
        PortMap(container_port=80, host_port=8081, host_ip=HOST),
    )
    web = site.container("web", "shop", ports=published)
    web.serve(80, b"page")
    table = f"inet {site.paths.name()}"
    networks = list(site.networks.values())
    site.manager.repair_firewall(networks, site.ports)
    seen = site.observe()
    assert not (seen.bridges_lost or seen.links_lost or seen.ports_lost or seen.firewall_lost)

    nft(f"delete element {table} published {{ tcp . 8080 }}")
    nft(f"delete element {table} published_at {{ {HOST} . tcp . 8081 }}")
    assert [port.host_port for port in site.observe().ports_lost] == [8080, 8081]
    site.manager.repair_ports(site.ports)
    assert site.observe().ports_lost == ()
    assert outside.ask(HOST, 8080) == outside.ask(HOST, 8081) == f"page {OUTSIDE}"

    for damage, named in (
        (f"delete element {table} bridges {{ {record.bridge} }}", "element"),
        (f"flush chain {table} forward", "chain inet"),
        (f"delete table bridge {site.paths.name()}", "table bridge"),
        (f"delete table {table}", f"table {table}"),
    ):
        nft(damage)
        assert [part for part in site.observe().firewall_lost if part.startswith(named)], damage
        site.manager.repair_firewall(networks, site.ports)
        assert site.observe().firewall_lost == ()
        assert outside.ask(HOST, 8080) == f"page {OUTSIDE}"

    ip(f"link del {record.bridge}")
    assert site.observe().bridges_lost == {record.id}
    site.manager.repair_network(record)
    assert site.observe().bridges_lost == frozenset()
    assert outside.ask(HOST, 8080) == f"page {OUTSIDE}"

    [(endpoint, _)] = next(iter(site.places.values()))
    ip(f"link del {endpoint.host_link}")
    assert site.observe().links_lost == {endpoint.container: (endpoint.host_link,)}


def test_connections_go_on_while_the_table_is_replaced(site: Site, outside: Namespace) -> None:
    site.network(NetworkSpec(name="shop"))
    web = site.container("web", "shop", ports=(PortMap(container_port=80, host_port=8080),))
    listener = web.run(lambda: socket.create_server(("0.0.0.0", 80)))
    client = outside.run(lambda: socket.create_connection((HOST, 8080), timeout=2))
    server, _ = listener.accept()
    for _ in range(5):
        site.manager.repair_firewall(list(site.networks.values()), site.ports)
        client.sendall(b"ping")
        assert server.recv(4) == b"ping"
    site.manager.unpublish(site.ports)
    client.sendall(b"ping")
    with pytest.raises(ConnectionResetError):  # not left hanging
        client.recv(1)
    for sock in (client, server, listener):
        sock.close()


def test_a_flush_by_others_is_healed_by_the_next_start(site: Site) -> None:
    site.network(NetworkSpec(name="shop"))
    nft(f"delete table inet {site.paths.name()}")
    web = site.container("web", "shop", ports=(PortMap(container_port=80, host_port=8080),))
    web.serve(80, b"page")
    assert ask("127.0.0.1", 8080).startswith("page ")
    assert site.observe().firewall_lost == ()


def test_two_instances_do_not_meet(site: Site, tmp_path: Path) -> None:
    nft("add table inet foreign")
    with new_site(tmp_path / "b") as second:
        for each in (site, second):
            each.network(NetworkSpec(name="bridge"))
            each.network(NetworkSpec(name="shop"))
        nets = [*site.networks.values(), *second.networks.values()]
        assert len({n.subnet for n in nets}) == len({n.bridge for n in nets}) == 4
        one = site.container("web", "shop", ports=(PortMap(container_port=80, host_port=8080),))
        two = second.container("web", "shop", ports=(PortMap(container_port=80, host_port=8081),))
        one.serve(80, b"one")
        two.serve(80, b"two")
        assert two.ask(bridge_gateway(site), 8080).startswith("one ")
        assert one.ask(bridge_gateway(second), 8081).startswith("two ")
        with pytest.raises(OSError):
            one.ask(second.address("web"), 80, timeout=0.3)
        second.manager.remove_all()
        assert ask("127.0.0.1", 8080).startswith("one ")
        assert site.observe().firewall_lost == ()
    with links.route_socket() as netlink:
        left = [link.name for link in links.list_all(netlink)]
    assert not [name for name in left if second.paths.instance in name]
    nft("list table inet foreign")
    nft("delete table inet foreign")


def bridge_gateway(site: Site) -> str:
    return site.networks["bridge"].gateway


def test_subnets_and_bridges_that_are_taken_are_refused(site: Site, outside: Namespace) -> None:
    shop = site.network(NetworkSpec(name="shop", subnet="172.20.5.0/24", ip_range="172.20.5.128/25"))
    assert (shop.gateway, shop.mtu) == ("172.20.5.1", 1500)
    plan = site.manager.plan_network
    with pytest.raises(Conflict, match="overlaps with network shop"):
        plan(NetworkSpec(name="x", subnet="172.20.0.0/16"), [shop])
    with pytest.raises(Conflict, match=r"overlaps with route 10\.99\.0\.0/24"):
        plan(NetworkSpec(name="x", subnet="10.99.0.0/16"), [shop])
    with pytest.raises(Conflict, match="a link named lo"):
        plan(NetworkSpec(name="x", options={"com.docker.network.bridge.name": "lo"}), [])
    site.container("web", "shop")
    assert site.address("web") == "172.20.5.128"
    endpoint = EndpointSpec(network="shop", ipv4="172.20.5.128")
    with pytest.raises(Conflict, match="already in use"):
        site.manager.plan_endpoint(shop, {"172.20.5.128"}, endpoint, 0, "c", ())


def test_a_leftover_of_the_last_run_is_replaced(site: Site) -> None:
    site.network(NetworkSpec(name="shop"))
    site.container("web", "shop")
    again = site.container("web", "shop")  # the same container; the first namespace is still held
    assert again.run(lambda: links_inside()) == ["lo", "eth0"]


def links_inside() -> list[str]:
    with links.route_socket() as netlink:
        return [link.name for link in links.list_all(netlink)]


def test_the_kernels_refusal_says_what_was_done(site: Site) -> None:
    record = site.network(NetworkSpec(name="shop"))
    with pytest.raises(HostRefused, match=r"create network shop: "):
        site.manager.create(replace(record, bridge="a/b"))


def test_ending_connections_without_a_filter_of_the_kernel(
    site: Site, outside: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.network(NetworkSpec(name="shop"))
    ports = (PortMap(container_port=80, host_port=8080), PortMap(container_port=81, host_port=8081))
    web, other = site.container("web", "shop", ports=ports[:1]), site.container("o", "shop", ports=ports[1:])
    listeners = [n.run(lambda p=p: socket.create_server(("0.0.0.0", p))) for n, p in ((web, 80), (other, 81))]
    clients = [outside.run(lambda p=p: socket.create_connection((HOST, p), 2)) for p in (8080, 8081)]
    request = netlink.Netlink.request

    def older_kernel(self: netlink.Netlink, message: netlink.Message) -> None:
        if message.type == 0x102 and b"\x19" in message.body[-20:]:
            raise netlink.NetlinkError(22, "Invalid argument")
        request(self, message)

    monkeypatch.setattr(netlink.Netlink, "request", older_kernel)
    site.manager.unpublish([port for port in site.ports if port.host_port == 8080])
    for client in clients:
        client.sendall(b"ping")
    with pytest.raises(ConnectionResetError):
        clients[0].recv(1)
    accepted, _ = listeners[1].accept()
    assert accepted.recv(4) == b"ping"
    for sock in (*clients, *listeners, accepted):
        sock.close()


def test_many_are_attached_and_published(site: Site) -> None:
    """Prints how long it takes; a slow machine is no failure."""
    site.network(NetworkSpec(name="shop"))
    spent = []
    for number in range(5):
        began = time.perf_counter()
        site.container(f"c{number}", "shop", ports=(PortMap(container_port=80),))
        spent.append(time.perf_counter() - began)
    print("attach and publish:", " ".join(f"{1000 * each:.1f}" for each in spent), "ms")
    assert len({port.host_port for port in site.ports}) == 5
