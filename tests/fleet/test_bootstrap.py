"""Bringing an agent to a host: finding Python, sending, verifying, switching, removing.

The agent here is a stand-in that presents itself and answers version and stop, so that these tests are about
the way to the host and not about what is at its end.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import isolation
from tests.support.testhost import TestHost, TestNetwork

import hawse_agent
from hawse.fleet import bootstrap, bundle
from hawse.fleet.bundle import Bundle
from hawse.ssh.client import SshClient
from hawse.ssh.connection import Connection
from hawse.ssh.target import Target
from hawse_agent.errors import HostRefused, OutOfSpace, Unreachable

pytestmark = pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)")

STAND_IN = """
import json, os, sys
HERE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
def run():
    if sys.argv[1:2] == ["reset"]:
        return 0
    if sys.argv[1:2] == ["doctor"]:
        print(json.dumps({"python": sys.executable, "uid": os.getuid()}))
        return 0
    preamble = {"protocol": 1, "version": VERSION, "bundle": os.path.basename(HERE), "pid": os.getpid()}
    sys.stdout.write("\\0HAWSE\\0" + json.dumps(preamble) + "\\n")
    sys.stdout.flush()
    while line := sys.stdin.readline():
        method, path, _ = line.split()
        while sys.stdin.readline().strip():
            pass
        with open("/run/requests", "a") as log:
            log.write(f"{method} {path}\\n")
        flags = [sys.flags.isolated, sys.flags.no_site]
        body = json.dumps({"version": VERSION, "uid": os.getuid(), "flags": flags})
        sys.stdout.write(f"HTTP/1.1 200 OK\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n{body}")
        sys.stdout.flush()
    return 0
"""


def stand_in(directory: Path, version: str) -> Bundle:
    """A bundle whose agent only presents itself."""
    directory.mkdir()
    (directory / "__init__.py").write_text("")
    (directory / "__main__.py").write_text(f"VERSION = {version!r}\n{STAND_IN}")
    files = [(f"hawse_agent/{path.name}", path) for path in directory.iterdir()]
    tar = bundle.build([*files, ("h11/__init__.py", directory / "__init__.py")])
    path = directory / "bundle.tar.gz"
    path.write_bytes(gzip.compress(tar))
    return Bundle(version=version, digest=hashlib.sha256(tar).hexdigest(), path=path)


@pytest.fixture(scope="module")
def web1() -> Iterator[TestHost]:
    with TestNetwork() as network:
        host = network.host("web1")
        network.start()
        host.add_user("deploy", sudo="nopasswd", bashrc="echo NOISE; echo noise >&2")
        yield host


@pytest.fixture
def connection(web1: TestHost) -> Iterator[Connection]:
    """As a user with sudo and a noisy shell; the host is without an agent."""
    client = SshClient()
    target = Target(
        name="web1",
        address=web1.address,
        user="deploy",
        private_key=web1.network.client_key,
        host_key=web1.host_keys()[0],
    )
    with client.connect(target) as connection:
        yield connection
    web1.shell("rm -rf /usr/local/sbin/hawse-agent /var/lib/hawse/* /var/lib/hawse/.[!.]* /run/requests")


@pytest.fixture
def ours(tmp_path: Path) -> Bundle:
    return stand_in(tmp_path / "ours", "1.2.0")


def installed(web1: TestHost) -> list[str]:
    return web1.shell("ls -A /var/lib/hawse/agent").split()


def test_a_bare_host(connection: Connection, web1: TestHost, ours: Bundle) -> None:
    assert bootstrap.existing_agent(connection) is None
    assert not web1.path("/var/lib/hawse/agent").exists()
    said: list[str] = []
    with bootstrap.connect_agent(connection, lambda: ours, say=said.append) as client:
        assert client.version() == {"version": "1.2.0", "uid": 0, "flags": [1, 1]}
        assert client.preamble and client.preamble.bundle == ours.digest
        with client.second() as second:
            assert second.version()["version"] == "1.2.0"
    assert said == ["installing the agent"] and installed(web1) == [ours.digest]
    agent = web1.path(f"/var/lib/hawse/agent/{ours.digest}")
    assert agent.joinpath("bin/hawse-agent").read_text().startswith("#!/usr/bin/python3")
    assert list(agent.glob("hawse_agent/__pycache__/*.pyc"))
    said.clear()
    with bootstrap.connect_agent(connection, lambda: ours, say=said.append) as client:
        assert client.version() and said == []
    assert bootstrap.doctor(connection)["uid"] == 0


def test_upgrade_and_never_back(connection: Connection, web1: TestHost, ours: Bundle, tmp_path: Path) -> None:
    old = stand_in(tmp_path / "old", "1.1.9")
    bootstrap.connect_agent(connection, lambda: old).close()
    with bootstrap.connect_agent(connection, lambda: ours) as client:
        assert client.version()["version"] == "1.2.0"
    assert "POST /hawse/v1/daemon/stop" in web1.path("/run/requests").read_text()
    assert sorted(installed(web1)) == sorted([old.digest, ours.digest])
    with bootstrap.connect_agent(connection, lambda: old) as client:
        assert client.version()["version"] == "1.2.0"
    with bootstrap.connect_agent(connection, lambda: old, downgrade=True) as client:
        assert client.version()["version"] == "1.1.9"


def test_old_bundles_go(connection: Connection, web1: TestHost, tmp_path: Path) -> None:
    bundles = [stand_in(tmp_path / f"v{n}", f"1.0.{n}") for n in range(5)]
    for made in bundles:
        bootstrap.install(connection, made)
    assert sorted(installed(web1)) == sorted(made.digest for made in bundles[2:])


def test_a_damaged_bundle_changes_nothing(connection: Connection, web1: TestHost, ours: Bundle) -> None:
    broken = Bundle(version="1.3.0", digest="0" * 64, path=ours.path)
    bootstrap.install(connection, ours)
    with pytest.raises(HostRefused, match="damaged on its way"):
        bootstrap.install(connection, broken)
    cut = ours.path.with_name("cut")
    cut.write_bytes(ours.path.read_bytes()[:-20])
    with pytest.raises(HostRefused, match="could not be installed"):
        bootstrap.install(connection, Bundle(version="1.3.0", digest=ours.digest, path=cut))
    assert installed(web1) == [ours.digest]
    bootstrap.connect_agent(connection, lambda: ours).close()


def test_a_full_disk(connection: Connection, web1: TestHost, ours: Bundle) -> None:
    web1.small_disk("/var/lib/hawse/agent", "1m")
    web1.fill_disk("/var/lib/hawse/agent", leave=4096)
    try:
        with pytest.raises(OutOfSpace, match="No space left"):
            bootstrap.connect_agent(connection, lambda: ours)
        assert installed(web1) == ["ballast.test"]
        web1.free_disk("/var/lib/hawse/agent")
        bootstrap.connect_agent(connection, lambda: ours).close()
    finally:
        web1.unmount("/var/lib/hawse/agent")


def test_two_at_once(connection: Connection, web1: TestHost, ours: Bundle) -> None:
    failures: list[Exception] = []

    def install() -> None:
        try:
            bootstrap.install(connection, ours)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=install) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and installed(web1) == [ours.digest]
    bootstrap.connect_agent(connection, lambda: ours).close()


@pytest.mark.parametrize(
    ("how", "reason"),
    [("absent", "there is no Python"), ("old", "is Python 3.9"), ("minimal", "without json,http.client")],
)
def test_no_fitting_python(
    connection: Connection, web1: TestHost, ours: Bundle, how: str, reason: str
) -> None:
    web1.hide_python(how)  # type: ignore[arg-type]
    try:
        with pytest.raises(Unreachable, match=reason) as caught:
            bootstrap.connect_agent(connection, lambda: ours)
    finally:
        web1.restore_python()
    assert caught.value.stage == "python" and "ansible_python_interpreter" in caught.value.hint


def test_the_interpreter_is_chosen(connection: Connection, web1: TestHost, ours: Bundle) -> None:
    web1.shell("mkdir -p /opt/py && ln -sf /usr/bin/python3 /opt/py/python")
    bootstrap.connect_agent(connection, lambda: ours, python="/opt/py/python").close()
    assert web1.shell("head -1 /usr/local/sbin/hawse-agent").startswith("#!/opt/py/python -IS")
    with pytest.raises(Unreachable, match="there is no /opt/nothing/python"):
        bootstrap.find_python(connection, "/opt/nothing/python")


def test_an_interpreter_that_went_away(connection: Connection, web1: TestHost, ours: Bundle) -> None:
    web1.shell("mkdir -p /opt/py && ln -sf /usr/bin/python3 /opt/py/python")
    bootstrap.connect_agent(connection, lambda: ours, python="/opt/py/python").close()
    web1.shell("rm /opt/py/python")
    with bootstrap.connect_agent(connection, lambda: ours) as client:
        assert client.version()["version"] == "1.2.0"


def test_an_agent_that_does_not_start(connection: Connection, web1: TestHost, ours: Bundle) -> None:
    web1.write_file(
        "/usr/local/sbin/hawse-agent", "#!/bin/sh\necho 'hawse-agent: no luck' >&2; exit 1\n", 0o755
    )
    with pytest.raises(Unreachable, match="does not start: no luck") as caught:
        bootstrap.connect_agent(connection, lambda: ours)
    assert caught.value.stage == "agent"


def test_remove(connection: Connection, web1: TestHost, ours: Bundle) -> None:
    bootstrap.install(connection, ours)
    web1.shell("mkdir -p /var/lib/hawse/volumes/data /var/lib/hawse/blobs; touch /var/lib/hawse/state.db")
    assert bootstrap.remove(connection) == ("/var/lib/hawse/volumes",)
    assert web1.shell("ls -A /var/lib/hawse /usr/local/sbin").split() == [
        "/usr/local/sbin:",
        "/var/lib/hawse:",
        "volumes",
    ]
    assert bootstrap.remove(connection, volumes=True) == ()
    web1.write_file("/usr/local/sbin/hawse-agent", "#!/bin/sh\nexit 0\n", 0o755)  # somebody else's
    assert bootstrap.remove(connection) == ("/usr/local/sbin/hawse-agent",)


def test_our_real_bundle_arrives_whole(connection: Connection, web1: TestHost) -> None:
    made = bundle.bundle()
    bootstrap.install(connection, made)
    code = "import sys; sys.path.insert(0, sys.argv[1]); import h11, hawse_agent.engine.engine; "
    code += "print(hawse_agent.__version__)"
    where = f"/var/lib/hawse/agent/{made.digest}"
    assert web1.run(["/usr/bin/python3", "-ISc", code, where]).stdout.strip() == hawse_agent.__version__
