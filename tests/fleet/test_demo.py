"""The steps of `make demo`, with the hosts looked at from outside in between: the main job, end to end."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import testinfra
from testinfra.host import Host
from tests.support import demo, guestbook, isolation
from tests.support.testhost import TestHost

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(guestbook.cached() is None, reason="needs the guestbook's image (make image)"),
]

AGENT = "/usr/local/sbin/hawse-agent"
DATA = "/var/lib/hawse/volumes/guestbook_data/_data"


@pytest.fixture
def shown() -> Iterator[demo.Demo]:
    with demo.prepared() as prepared:
        yield prepared


def test_every_step_of_the_demo_holds(shown: demo.Demo) -> None:
    looks: dict[str, Callable[[demo.Demo], None]] = {
        "check": nothing_is_there,
        "play": everything_runs,
        "repair": limits_and_rules_are_right,
        "backup_and_restore": the_data_is_on_disk,
        "kill": everything_runs,
        "take_down": nothing_is_there,
    }
    for title, step in shown.steps:
        print(f"\n{title}")
        step()
        if look := looks.get(step.__name__):
            look(shown)


def outside(host: TestHost) -> Host:
    """The host as testinfra sees it over OpenSSH."""
    options = ("IdentitiesOnly=yes", "BatchMode=yes", f"UserKnownHostsFile={host.network.known_hosts}")
    return testinfra.get_host(
        f"ssh://root@{host.address}",
        ssh_config="none",
        ssh_identity_file=str(host.network.client_key),
        ssh_extra_args=" ".join(f"-o {option}" for option in options),
        controlpersist=0,
    )


def nothing_is_there(shown: demo.Demo) -> None:
    for host in shown.network.hosts:
        seen = outside(host)
        assert not seen.file(AGENT).exists
        assert not seen.file("/var/lib/hawse/state.db").exists
        assert not seen.socket(f"tcp://0.0.0.0:{demo.PORT}").is_listening
        assert not [one for one in seen.process.filter() if "hawse" in one.args or "nginx" in one.args]
        assert seen.check_output("nft list tables; ip -br link show type bridge") == ""
        assert not [point for point in seen.mount_point.get_mountpoints() if "hawse/" in point.path]


def everything_runs(shown: demo.Demo) -> None:
    for host in (shown.web1, shown.web2):
        seen = outside(host)
        agent_is_there(seen)
        application = the_application(seen)
        assert application.user == "www-data"
        assert {one.user for one in seen.process.filter(comm="nginx")} == {"root", "www-data"}
        assert served_by(host) == host.name
    seen = outside(shown.db1)
    agent_is_there(seen)
    (redis,) = seen.process.filter(comm="redis-server")
    namespaces = seen.check_output(f"grep NSpid: /proc/{redis.pid}/status").split()
    assert namespaces[1:] == [str(redis.pid), "1"]  # PID 1 of a namespace of its own
    assert seen.file(f"{DATA}/appendonlydir").is_directory


def the_application(seen: Host) -> Any:
    """The server, not a health check that runs beside it just now."""
    (found,) = (one for one in seen.process.filter(comm="python3") if one.args == "python3 -u /srv/app.py")
    return found


def agent_is_there(seen: Host) -> None:
    assert seen.file(AGENT).is_symlink
    state = seen.file("/var/lib/hawse/state.db")
    assert (state.user, state.mode) == ("root", 0o600)
    socket = seen.file("/run/hawse/agent.sock")
    assert socket.is_socket
    assert (socket.user, socket.mode) == ("root", 0o600)
    assert seen.socket("unix:///run/hawse/agent.sock").is_listening
    assert "is part of the guestbook" in seen.file("/etc/motd").content_string


def limits_and_rules_are_right(shown: demo.Demo) -> None:
    seen = outside(shown.web1)
    application = the_application(seen)
    assert memory_limit(seen, application.pid) == 64 << 20
    assert f"tcp . {demo.PORT} :" in seen.check_output("nft list map inet hawse published")
    (redis,) = outside(shown.db1).process.filter(comm="redis-server")
    assert memory_limit(outside(shown.db1), redis.pid) == 192 << 20


def memory_limit(seen: Host, pid: int) -> int:
    for line in seen.check_output(f"cat /proc/{pid}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for name in ("memory/", "") if controllers in ("memory", "") else ():
            file = "memory.limit_in_bytes" if name else "memory.max"
            found = seen.run(f"cat /sys/fs/cgroup/{name}{path.strip('/')}/{file}")
            if found.rc == 0:
                return int(found.stdout)
    raise AssertionError(f"no memory limit of process {pid}")


def the_data_is_on_disk(shown: demo.Demo) -> None:
    written = outside(shown.db1).check_output(f"cat {DATA}/appendonlydir/*.incr.aof")
    assert written.count("RPUSH") == demo.ENTRIES
    assert shown.backup.stat().st_mode & 0o777 == 0o600
    assert shown.backup.with_name(f"{shown.backup.name}.manifest.json").stat().st_mode & 0o777 == 0o600


def served_by(host: TestHost) -> str:
    """What the page says about who has answered."""
    with urllib.request.urlopen(f"http://{host.address}:{demo.PORT}/", timeout=5) as answer:
        return str(answer.headers["X-Served-By"])
