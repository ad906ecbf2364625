"""Connections to real sshds: keys, host keys, sudo, and the stage that an unreachable host is told by."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest
from tests.support import isolation
from tests.support.testhost import TestHost, TestNetwork

from hawse.ssh.auth import KeyRing
from hawse.ssh.client import SshClient, SshConnection
from hawse.ssh.target import Target, Timeouts
from hawse_agent.errors import Unreachable

pytestmark = pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)")


@pytest.fixture(scope="module")
def network() -> Iterator[TestNetwork]:
    with TestNetwork() as network:
        network.host("web1")
        network.host("db1")
        network.start()
        yield network


@pytest.fixture(scope="module")
def web1(network: TestNetwork) -> TestHost:
    host = network.hosts[0]
    host.add_user("deploy", sudo="nopasswd", bashrc="echo NOISE; echo noise >&2")
    host.add_user("pat", password="hunter2", sudo="password")
    host.add_user("guest", password="guest")
    return host


@pytest.fixture
def client() -> Iterator[SshClient]:
    client = SshClient()
    yield client
    client.close()


def target(host: TestHost, **changes: Any) -> Target:
    fields: dict[str, Any] = {
        "address": host.address,
        "user": "root",
        "private_key": host.network.client_key,
        "host_key": host.host_keys()[0],
        "use_agent": False,
    }
    return Target(name=host.name, **{**fields, **changes})


def refused(client: SshClient, wanted: Target) -> Unreachable:
    with pytest.raises(Unreachable) as caught:
        client.connect(wanted).close()
    assert wanted.name in str(caught.value)
    return caught.value


def test_a_command(client: SshClient, web1: TestHost) -> None:
    with client.connect(target(web1)) as connection:
        done = connection.run("hostname; cat; echo problem >&2; exit 4", input=b"input")
        assert (done.code, done.stdout, done.errors) == (4, b"web1\ninput", "problem")
        assert connection.key_fingerprint in _fingerprint(web1.network.client_key)


def test_ipv6(client: SshClient, web1: TestHost) -> None:
    with client.connect(target(web1, address=web1.address6)) as connection:
        there = connection.run("echo $SSH_CONNECTION").text.split()[2]
        assert IPv6Address(there) == IPv6Address(web1.address6)


def test_much_data_both_ways(client: SshClient, web1: TestHost) -> None:
    pieces = (bytes([n]) * 1_000_000 for n in range(20))
    with client.connect(target(web1)) as connection:
        done = connection.run("tee /dev/stderr", input=pieces)
        assert done.stdout == b"".join(bytes([n]) * 1_000_000 for n in range(20))


def test_the_password_where_keys_fail(client: SshClient, web1: TestHost, tmp_path: Path) -> None:
    wrong = _make_key(tmp_path / "wrong")
    with client.connect(target(web1, user="pat", private_key=wrong, password="hunter2")) as connection:
        assert (connection.run("id -un").text, connection.key_fingerprint) == ("pat\n", "password")
    error = refused(client, target(web1, user="pat", private_key=wrong, password="no"))
    assert error.stage == "auth" and "password: not accepted" in str(error) and str(wrong) in str(error)


def test_a_protected_key(web1: TestHost, tmp_path: Path) -> None:
    key = _make_key(tmp_path / "protected", "opensesame")
    web1.write_file("/root/.ssh/authorized_keys2", key.with_suffix(".pub").read_text(), 0o600)
    asked: list[Path] = []

    def ask(path: Path) -> str:
        asked.append(path)
        return "opensesame"

    ring = KeyRing(ask)
    client = SshClient(keys=ring)
    for _ in range(2):
        client.connect(target(web1, private_key=key)).close()
    assert asked == [key]
    assert "passphrase" in str(refused(SshClient(), target(web1, private_key=key)))
    client.connect(target(web1, private_key=key, private_key_passphrase="opensesame")).close()


def test_a_key_of_the_agent(web1: TestHost, client: SshClient, monkeypatch: pytest.MonkeyPatch) -> None:
    socket = web1.network.directory / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        web1.wait_for(socket.exists, "the ssh-agent")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        subprocess.run(["ssh-add", "-q", str(web1.network.client_key)], check=True)
        with client.connect(target(web1, private_key=None, use_agent=True)) as connection:
            assert connection.key_fingerprint in _fingerprint(web1.network.client_key)
    finally:
        agent.terminate()
        agent.wait()


# -- host keys -----------------------------------------------------------------------------------


def test_host_keys_strict(client: SshClient, web1: TestHost, network: TestNetwork, tmp_path: Path) -> None:
    unknown = refused(client, target(web1, host_key="", known_hosts=(tmp_path / "none",)))
    assert unknown.stage == "host key" and "SHA256:" in str(unknown)
    client.connect(target(web1, host_key="", known_hosts=(network.known_hosts,))).close()


def test_only_the_second_kind_is_known(client: SshClient, web1: TestHost, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"{web1.address} {web1.host_keys()[1]}\n")
    client.connect(target(web1, host_key="", known_hosts=(known,))).close()


def test_a_wrong_host_key(client: SshClient, web1: TestHost, network: TestNetwork, tmp_path: Path) -> None:
    other = network.hosts[1].host_keys()[0]
    assert "pins" in str(refused(client, target(web1, host_key=other)))
    known = tmp_path / "known_hosts"
    known.write_text(f"{web1.address} {other}\n")
    for policy in ("strict", "accept-new"):
        error = refused(client, target(web1, host_key="", known_hosts=(known,), host_key_policy=policy))
        assert error.stage == "host key" and f"{known}:1" in str(error) and "ssh-keygen -R" in error.hint
    known.write_text(f"@revoked * {web1.host_keys()[0]}\n")
    assert "revoked" in str(refused(client, target(web1, host_key="", known_hosts=(known,))))


def test_accept_new(web1: TestHost, tmp_path: Path) -> None:
    known, heard = tmp_path / "ssh" / "known_hosts", list[str]()
    client = SshClient(warn=heard.append)
    wanted = target(web1, host_key="", known_hosts=(known,), host_key_policy="accept-new")
    for _ in range(2):
        client.connect(wanted).close()
    assert known.read_text() == f"{web1.address} {web1.host_keys()[0]}\n" and len(heard) == 1


def test_host_keys_off_is_loud(web1: TestHost, tmp_path: Path) -> None:
    heard: list[str] = []
    wanted = target(web1, host_key="", known_hosts=(tmp_path / "none",), host_key_policy="off")
    SshClient(warn=heard.append).connect(wanted).close()
    assert "not checked" in heard[0] and not (tmp_path / "none").exists()


def test_no_password_to_a_host_with_another_key(web1: TestHost, network: TestNetwork, tmp_path: Path) -> None:
    known, heard = tmp_path / "known_hosts", list[str]()
    known.write_text(f"{web1.address} {network.hosts[1].host_keys()[0]}\n")
    client = SshClient(warn=heard.append)
    wanted = target(web1, host_key="", known_hosts=(known,), host_key_policy="off", user="pat")
    wanted = replace(wanted, password="hunter2", become_password="hunter2")
    assert refused(client, replace(wanted, private_key=None)).stage == "auth"
    assert "no password is sent there" in heard[0] and "hunter2" not in "".join(heard)
    with client.connect(wanted) as connection:  # by key
        with pytest.raises(Unreachable) as sudo:
            connection.run("id -un", root=True)
        assert sudo.value.stage == "sudo"
    client.close()


# -- sudo ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "password"), [("root", ""), ("deploy", ""), ("deploy", "unneeded"), ("pat", "hunter2")]
)
def test_becoming_root(client: SshClient, web1: TestHost, user: str, password: str) -> None:
    with client.connect(target(web1, user=user, become_password=password)) as connection:
        done = connection.run("id -un; cat; echo end >&2", root=True, input=b"data")
        assert done.text.endswith("root\ndata") and done.errors == "end"


@pytest.mark.parametrize(
    ("user", "password", "reason"),
    [
        ("pat", "", "a password is required"),
        ("pat", "wrong", "the password is wrong"),
        ("guest", "", "a password is required"),
        ("guest", "guest", "not in the sudoers"),
    ],
)
def test_sudo_refuses(client: SshClient, web1: TestHost, user: str, password: str, reason: str) -> None:
    with client.connect(target(web1, user=user, become_password=password)) as connection:
        with pytest.raises(Unreachable, match=reason) as caught:
            connection.run("touch /was-here", root=True)
        assert caught.value.stage == "sudo"
    assert not web1.path("/was-here").exists()


def test_no_sudo_at_all(client: SshClient, network: TestNetwork) -> None:
    db1 = network.hosts[1]
    db1.add_user("lone")
    db1.run(["/bin/mv", "/usr/bin/sudo", "/usr/bin/sudo.away"])
    with client.connect(target(db1, user="lone")) as connection:
        with pytest.raises(Unreachable, match=r"sudo.*No such file") as caught:
            connection.run("id", root=True)
        assert caught.value.stage == "sudo"
    db1.run(["/bin/mv", "/usr/bin/sudo.away", "/usr/bin/sudo"])


# -- out of reach --------------------------------------------------------------------------------


def test_stage_dns(client: SshClient) -> None:
    assert refused(client, Target(name="no-such-host.invalid")).stage == "dns"


def test_stage_tcp(client: SshClient, web1: TestHost) -> None:
    assert "refused" in str(error := refused(client, target(web1, port=9))) and error.stage == "tcp"


def test_stage_banner(client: SshClient, web1: TestHost) -> None:
    code = "import socket; s = socket.create_server(('', 99)); c = s.accept(); c[0].recv(1000); s.accept()"
    server = web1.spawn(["/usr/bin/python3", "-c", code])
    listening = "ss -Hltn sport = :99 | grep -q ."
    web1.wait_for(lambda: web1.run(["/bin/sh", "-c", listening], check=False).returncode == 0, "a listener")
    start = time.monotonic()
    error = refused(client, target(web1, port=99, timeouts=Timeouts(banner=1)))
    assert error.stage == "banner" and time.monotonic() - start < 60
    web1.kill(server.pid)
    server.wait(5)


def test_a_pulled_cable(client: SshClient, network: TestNetwork) -> None:
    db1 = network.hosts[1]
    db1.block_network()
    start = time.monotonic()
    error = refused(client, target(db1, timeouts=Timeouts(connect=1)))
    db1.unblock_network()
    assert error.stage == "tcp" and time.monotonic() - start < 60


def test_a_connection_that_is_cut(client: SshClient, network: TestNetwork) -> None:
    db1 = network.hosts[1]
    connection = client.connect(target(db1))
    process = connection.open("echo started; exec sleep 60")
    assert process.recv(100, 5) == b"started\n"
    db1.shell("pkill -f 'sshd: root'", check=False)  # of this host alone: it has its own processes
    with pytest.raises(ConnectionResetError):
        process.recv(100, 10)
    with pytest.raises(Unreachable):
        connection.run("true")
    connection.close()
    db1.shell("pkill -x sleep")


def test_through_a_jump_host(client: SshClient, web1: TestHost, network: TestNetwork) -> None:
    db1 = network.hosts[1]
    known = (network.known_hosts,)
    jump = ("-F", "none", "-J", f"root@{web1.address}")
    connections: list[SshConnection] = []
    for _ in range(2):
        connections.append(client.connect(target(db1, host_key="", known_hosts=known, ssh_args=jump)))
        assert connections[-1].run("echo $SSH_CONNECTION").text.split()[0] == web1.address
    assert len(client._jumps) == 1
    for connection in connections:
        connection.close()
    broken = ("-F", "none", "-J", f"root@{web1.address}:9")
    error = refused(client, target(db1, host_key="", known_hosts=known, ssh_args=broken))
    assert error.stage == "tcp" and web1.address in str(error)


def test_through_a_proxy_command(client: SshClient, web1: TestHost) -> None:
    code = (
        "import socket,sys,os,threading; s=socket.create_connection(sys.argv[1:3]);"
        "send=lambda:[s.sendall(d) for d in iter(lambda:os.read(0,9999),b'')];"
        "threading.Thread(target=send,daemon=True).start();"
        "[os.write(1,d) for d in iter(lambda:s.recv(9999),b'')]"
    )
    command = f'ProxyCommand=/usr/bin/python3 -c "{code}" %h %p'
    args = ("-F", "none", "-o", command)
    with client.connect(target(web1, ssh_args=args)) as connection:
        assert connection.run("hostname").text == "web1\n"


def _make_key(path: Path, passphrase: str = "") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)], check=True)
    return path


def _fingerprint(key: Path) -> str:
    done = subprocess.run(["ssh-keygen", "-lf", str(key)], capture_output=True, text=True, check=True)
    return done.stdout
