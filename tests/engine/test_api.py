"""The Engine API beside what the clients' tests show: versions, statuses, shapes that tools look into."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]

LASTING = ["sleep", "1000"]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("agent", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self._path)


class Client:
    def __init__(self, agent: AgentUnderTest) -> None:
        self._connection = _Connection(str(agent.socket))

    def __call__(self, method: str, path: str, body: Any = None) -> Answer:
        """`path` with a version or not; a body that is not bytes is sent as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        self._connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        answer = self._connection.getresponse()
        raw = answer.read()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, headers, json.loads(raw) if raw.startswith((b"{", b"[")) else raw)

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def call(agent: AgentUnderTest) -> Iterator[Client]:
    client = Client(agent)
    yield client
    client.close()


def test_ping_and_versions(call: Client) -> None:
    for method, body in (("HEAD", b""), ("GET", b"OK")):
        answer = call(method, "/_ping")
        assert (answer.status, answer.body) == (200, body)
        for name, value in (
            ("api-version", "1.47"),
            ("ostype", "linux"),
            ("docker-experimental", "false"),
            ("swarm", "inactive"),
            ("builder-version", "1"),
            ("cache-control", "no-cache, no-store, must-revalidate"),
        ):
            assert answer.headers[name] == value
    assert call("GET", "/v1.47/version").body["ApiVersion"] == call("GET", "/version").body["ApiVersion"]
    assert call("GET", "/version").body["MinAPIVersion"] == "1.41"
    for version, text in (
        ("1.40", "client version 1.40 is too old. Minimum supported API version is 1.41, please upgrade"),
        ("1.48", "client version 1.48 is too new. Maximum supported API version is 1.47"),
    ):
        answer = call("GET", f"/v{version}/info")
        assert answer.status == 400 and answer.body["message"].startswith(text)
    assert call("GET", "/v1.41/info").headers["api-version"] == "1.47"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("GET", "/nothing", None, 404, "page not found"),
        ("GET", "/swarm", None, 404, "does not support swarm mode"),
        ("GET", "/plugins", None, 404, "does not support plugins"),
        ("GET", "/services", None, 404, "does not support swarm services"),
        ("POST", "/containers/create", b"{bad", 400, "not JSON"),
        ("POST", "/containers/create", b"[]", 400, "expected an object"),
        ("POST", "/containers/create", {"Image": 5}, 400, "Image: expected a text"),
        ("POST", "/containers/create", {"Image": "nosuch"}, 404, "No such image: nosuch:latest"),
        ("POST", "/containers/create?name=a%20b", {"Image": BUSYBOX}, 400, "Invalid container name (a b)"),
        ("GET", "/containers/json?filters=x", None, 400, "filters"),
        ("GET", "/containers/nosuch/json", None, 404, "No such container: nosuch"),
        ("POST", "/containers/nosuch/start", None, 404, "No such container: nosuch"),
        ("POST", "/containers/nosuch/kill", None, 404, "cannot kill container: nosuch: No such container"),
        ("GET", "/containers/nosuch/stats", None, 404, "No such container: nosuch"),
        ("GET", "/containers/nosuch/logs?stdout=1", None, 404, "No such container: nosuch"),
        ("POST", "/containers/nosuch/exec", {"Cmd": ["x"]}, 404, "No such container: nosuch"),
        ("POST", "/containers/nosuch/attach", None, 404, "No such container: nosuch"),
        ("POST", "/containers/nosuch/resize?h=1&w=1", None, 404, "No such container: nosuch"),
        ("GET", "/exec/nosuch/json", None, 404, "No such exec instance: nosuch"),
        ("POST", "/networks/create", {"Name": "bridge"}, 403, "not permitted on predefined bridge network"),
        ("DELETE", "/networks/bridge", None, 403, "bridge is a pre-defined network and cannot be removed"),
        ("GET", "/networks/nosuch", None, 404, "network nosuch not found"),
        ("GET", "/volumes/nosuch", None, 404, "no such volume"),
        ("GET", "/system/df?type=nosuch", None, 400, "nosuch"),
        ("GET", "/events?since=x", None, 400, "since"),
    ],
)  # fmt: skip
def test_refusals(call: Client, method: str, path: str, body: Any, status: int, text: str) -> None:
    answer = call(method, f"/v1.47{path}", body)
    assert (answer.status, text in answer.body["message"]) == (status, True), answer
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("Dns", ["1.1.1.1\nsearch evil"], "Dns: '1.1.1.1\\nsearch evil' is not an ip address"),
        ("ExtraHosts", ["a"], "ExtraHosts: bad format for add-host: \"a\""),
        ("CapAdd", ["FLY"], 'invalid CapAdd: unknown capability: "CAP_FLY"'),
        ("Ulimits", [{"Name": "nofile", "Soft": 2, "Hard": 1}], "ulimit soft limit must be less"),
        ("PidMode", "private", "invalid PID mode"),
        ("Sysctls", {"kernel.hostname": "x"}, "sysctl 'kernel.hostname' is not allowed"),
        ("Tmpfs", {"/t": "fast"}, 'invalid tmpfs option ["fast"]'),
        ("Tmpfs", {"/.": ""}, "destination can't be '/'"),
        ("MemorySwap", -5, "MemorySwap: -5: expected a size, or -1 for no limit"),
        ("Binds", ["/a:/x", "/b:/y/../x"], "Duplicate mount point: /x"),
        ("Binds", ["/a:/x\0"], "HostConfig.Binds[0]: expected a text without NUL"),
        ("GroupAdd", ["\ud800"], "HostConfig.GroupAdd[0]: expected a text, not half a character"),
        ("PortBindings", {"80/tcp": [{"HostIp": "localhost", "HostPort": "1"}]}, "host address localhost"),
        ("ShmSize", 1 << 70, "expected a number of 64 bits"),
        ("BlkioDeviceReadBps", [{"Path": "/dev/null", "Rate": 1}], "/dev/null is not a block device"),
    ],
)  # fmt: skip
def test_what_a_start_would_fail_for_is_refused_at_create(
    call: Client, field: str, value: Any, text: str
) -> None:
    answer = call("POST", "/v1.47/containers/create", {"Image": BUSYBOX, "HostConfig": {field: value}})
    assert (answer.status, text in answer.body["message"]) == (400, True), answer
    assert call("GET", "/v1.47/containers/json?all=1").body == []


def test_nothing_but_an_answer_comes_of_json_without_end(call: Client) -> None:
    for path in ("/containers/create", "/networks/create", "/volumes/create"):
        answer = call("POST", f"/v1.47{path}", b"[" * 100_000)
        assert answer.status == 400 and "nested more than" in answer.body["message"]


def test_one_container_by_all_of_its_names(call: Client) -> None:
    made = call("POST", "/v1.47/containers/create?name=%2Fapi.one-1_x", {"Image": BUSYBOX, "Cmd": LASTING})
    assert (made.status, set(made.body)) == (201, {"Id", "Warnings"})
    identity = made.body["Id"]
    for name in ("api.one-1_x", "/api.one-1_x", quote("/api.one-1_x", safe=""), identity, identity[:12]):
        answer = call("GET", f"/v1.47/containers/{name}/json")
        assert (answer.status, answer.body["Name"]) == (200, "/api.one-1_x")
    taken = call("POST", "/v1.47/containers/create?name=api.one-1_x", {"Image": BUSYBOX})
    assert taken.status == 409
    assert taken.body["message"] == (
        f'Conflict. The container name "/api.one-1_x" is already in use by container "{identity}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
    assert call("POST", f"/v1.47/containers/{identity}/rename").body["message"] == (
        "Neither old nor new names may be empty"
    )
    call("POST", "/v1.47/containers/create?name=other", {"Image": BUSYBOX})
    answer = call("POST", "/v1.47/containers/other/rename?name=api.one-1_x")
    assert answer.status == 409
    assert answer.body["message"].startswith("Error when allocating new name: Conflict. The container name")


def test_what_changes_nothing_and_what_cannot_be(call: Client) -> None:
    identity = call("POST", "/containers/create", {"Image": BUSYBOX, "Cmd": LASTING}).body["Id"]
    one = f"/v1.47/containers/{identity}"
    for path, status in (
        ("resize?h=10&w=10", 409), ("kill", 409), ("pause", 409), ("exec", 409), ("stop", 304),
        ("start", 204), ("start", 304), ("resize?h=10&w=10", 200), ("resize?h=x&w=1", 400), ("unpause", 409),
        ("pause", 204), ("pause", 409), ("exec", 409), ("unpause", 204), ("stop?t=x", 400), ("stop?t=0", 204),
        ("stop", 304), ("wait?condition=never", 400), ("restart?t=0", 204),
    ):  # fmt: skip
        body = {"Cmd": ["true"]} if path == "exec" else None
        answer = call("POST", f"{one}/{path}", body)
        assert answer.status == status, (path, answer)
    answer = call("POST", f"{one}/start", {"Binds": ["/x:/y"]})
    assert answer.status == 400 and "non-empty request body" in answer.body["message"]
    assert call("DELETE", one).status == 409
    assert call("DELETE", f"{one}?force=1").status == 204
    assert call("DELETE", one).status == 404


def test_an_execution_is_shown(call: Client) -> None:
    identity = call("POST", "/containers/create", {"Image": BUSYBOX, "Cmd": LASTING}).body["Id"]
    call("POST", f"/containers/{identity}/start")
    asked = {
        "Cmd": ["sleep", "1000"],
        "AttachStdout": True,
        "User": "bob",
        "WorkingDir": "/tmp",
        "Env": ["A=1"],
    }
    execution = call("POST", f"/v1.47/containers/{identity}/exec", asked).body["Id"]
    before = call("GET", f"/v1.47/exec/{execution}/json").body
    assert (before["Running"], before["ExitCode"], before["Pid"]) == (False, None, 0)
    assert before["ProcessConfig"] == {
        "tty": False, "entrypoint": "sleep", "arguments": ["1000"], "privileged": False, "user": "bob",
    }  # fmt: skip
    assert (before["OpenStdin"], before["OpenStdout"], before["OpenStderr"]) == (False, True, False)
    assert call("POST", f"/v1.47/exec/{execution}/start", {"Detach": True}).status == 200
    now = call("GET", f"/v1.47/exec/{execution}/json").body
    assert (now["Running"], now["ExitCode"], now["Pid"] > 0, now["ContainerID"]) == (
        True,
        None,
        True,
        identity,
    )
    assert call("GET", f"/v1.47/containers/{identity}/json").body["ExecIDs"] == [execution]
    late = call("POST", f"/v1.47/containers/{identity}/exec", {"Cmd": ["true"]}).body["Id"]
    call("POST", f"/v1.47/containers/{identity}/pause")
    answer = call("POST", f"/v1.47/exec/{late}/start", {"Detach": True})
    assert answer.status == 409 and "is paused, unpause the container before exec" in answer.body["message"]


def test_stats_of_one_that_does_not_run(call: Client) -> None:
    identity = call("POST", "/containers/create", {"Image": BUSYBOX}).body["Id"]
    shown = call("GET", f"/v1.47/containers/{identity}/stats?stream=0").body
    assert (shown["read"], shown["preread"]) == ("0001-01-01T00:00:00Z",) * 2
    assert (
        shown["cpu_stats"]["cpu_usage"]["total_usage"] == 0 and "system_cpu_usage" not in shown["cpu_stats"]
    )
    assert shown["memory_stats"] == shown["pids_stats"] == {}
    assert "networks" not in shown and shown["blkio_stats"]["io_service_bytes_recursive"] is None


def test_stats_of_one_that_runs(call: Client) -> None:
    config = {"Image": BUSYBOX, "Cmd": LASTING, "HostConfig": {"Memory": 64 << 20, "PidsLimit": 50}}
    identity = call("POST", "/containers/create", config).body["Id"]
    call("POST", f"/containers/{identity}/start")
    shown = call("GET", f"/v1.47/containers/{identity}/stats?stream=0").body
    assert shown["preread"] < shown["read"]
    assert shown["precpu_stats"]["system_cpu_usage"] < shown["cpu_stats"]["system_cpu_usage"]
    assert (shown["memory_stats"]["limit"], shown["pids_stats"]) == (64 << 20, {"current": 1, "limit": 50})
    assert set(shown["networks"]["eth0"]) == {
        *("rx_bytes", "rx_packets", "rx_errors", "rx_dropped"),
        *("tx_bytes", "tx_packets", "tx_errors", "tx_dropped"),
    }
    once = call("GET", f"/v1.47/containers/{identity}/stats?stream=0&one-shot=1").body
    assert once["preread"] == "0001-01-01T00:00:00Z" and once["precpu_stats"]["cpu_usage"]["total_usage"] == 0


def test_what_tools_look_into(call: Client) -> None:
    config = {"Image": BUSYBOX, "Cmd": LASTING, "HostConfig": {"SecurityOpt": ["no-new-privileges"]}}
    identity = call("POST", "/containers/create", config).body["Id"]
    call("POST", f"/containers/{identity}/start")
    shown = call("GET", f"/v1.47/containers/{identity}/json").body
    for field in (
        "CgroupParent",
        "BlkioWeight",
        "OomKillDisable",
        "VolumeDriver",
        "Isolation",
        "DeviceRequests",
    ):
        assert not shown["HostConfig"][field]
    assert "/proc/kcore" in shown["HostConfig"]["MaskedPaths"]
    assert shown["NetworkSettings"]["SandboxKey"] == f"/proc/{shown['State']['Pid']}/ns/net"
    again = {**shown["Config"], "HostConfig": shown["HostConfig"]}  # as tools do that replace a container
    assert call("POST", "/containers/create", again).status == 201
    bridge = call("GET", "/v1.47/networks/bridge").body
    assert bridge["Options"]["com.docker.network.bridge.default_bridge"] == "true"
    info = call("GET", "/v1.47/info").body
    assert (info["ContainersRunning"], info["MemoryLimit"], info["Swarm"]["LocalNodeState"]) == (
        1, True, "inactive",
    )  # fmt: skip
    assert info["DriverStatus"][0][0] == "Backing Filesystem"


def test_an_update_is_in_force_at_once(agent: AgentUnderTest, call: Client) -> None:
    config = {"Image": BUSYBOX, "Cmd": LASTING, "HostConfig": {"CpuPeriod": 50_000, "CpuQuota": 20_000}}
    identity = call("POST", "/containers/create", config).body["Id"]
    call("POST", f"/containers/{identity}/start")
    script = "cd /sys/fs/cgroup; cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us || cat cpu.max"

    def quota() -> list[str]:
        done = agent.client.containers.get(identity).exec_run(["sh", "-c", f"({script}) 2>/dev/null"])
        return str(done.output.decode()).split()

    assert quota() == ["20000", "50000"]
    assert call("POST", f"/v1.47/containers/{identity}/update", {"CpuQuota": 30_000}).status == 200
    assert quota() == ["30000", "50000"]
    shown = call("GET", f"/v1.47/containers/{identity}/json").body["HostConfig"]
    assert (shown["CpuQuota"], shown["CpuPeriod"], shown["NanoCpus"]) == (30_000, 50_000, 0)
    refused = call("POST", f"/v1.47/containers/{identity}/update", {"NanoCpus": 10**9})
    assert refused.status == 400 and "CPU Period has already been set" in refused.body["message"]
    assert call("GET", "/v1.47/containers/json").body[0]["Command"] == "sleep 1000"
