"""No JSON that a client sends is a bug of ours: it is taken, or refused with a status that says so."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import hypothesis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.agent.api.test_lowering import CLI

from hawse_agent.api.docker import containers, execs, networks, volumes
from hawse_agent.api.docker.views import configuration, hostconfig
from hawse_agent.api.hawse import blobs, program
from hawse_agent.api.http import Body, Request
from hawse_agent.api.router import Router
from hawse_agent.engine import checks, resolve
from hawse_agent.errors import HawseError, HostRefused
from hawse_agent.spec import codec
from hawse_agent.spec.container import ContainerSpec, HealthCheck, Resources
from hawse_agent.spec.host import HostSpec, Item, StackSpec, TaskSpec
from hawse_agent.spec.volume import Mount


class Accepted(HawseError):
    status = 201


FULL = {
    **CLI,
    "Env": ["A=b"], "Cmd": ["a"], "Entrypoint": ["e"], "User": "1", "ExposedPorts": {"80/tcp": {}},
    "Hostname": "h", "Domainname": "d", "Volumes": {"/v": {}}, "Labels": {"a": "b"}, "StopSignal": "TERM",
    "StopTimeout": 1, "Healthcheck": {"Test": ["CMD", "a"], "Interval": 10**9, "Retries": 2},
    "HostConfig": {
        **CLI["HostConfig"],  # type: ignore[dict-item]
        "Binds": ["/a:/b:ro"], "Mounts": [{"Type": "volume", "Source": "s", "Target": "/t"}],
        "Tmpfs": {"/tmp": "size=1m"}, "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "80"}]},
        "Dns": ["1.1.1.1"], "DnsSearch": ["a.b"], "DnsOptions": ["ndots:1"], "ExtraHosts": ["a:1.1.1.1"],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}},
        "CapAdd": ["NET_ADMIN"], "CapDrop": ["KILL"], "Sysctls": {"net.core.somaxconn": "5"},
        "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}], "SecurityOpt": ["no-new-privileges"],
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}],
        "GroupAdd": ["1"], "Links": ["a:b"],
        "MaskedPaths": ["/proc/x"], "VolumesFrom": ["c:ro"], "CpusetCpus": "0", "ShmSize": 5,
    },
}  # fmt: skip
UPDATE = {
    "Memory": 1 << 30, "MemorySwap": -1, "MemoryReservation": 1 << 29, "NanoCpus": 10**9, "CpuShares": 5,
    "PidsLimit": 9, "CpusetCpus": "0", "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 1},
    "BlkioDeviceReadBps": [],
}  # fmt: skip
EXEC = {
    "Cmd": ["a"], "Env": ["A=b"], "User": "1", "WorkingDir": "/", "Tty": True, "AttachStdin": True,
    "DetachKeys": "ctrl-p", "Privileged": False, "ConsoleSize": [1, 2],
}  # fmt: skip
NETWORK = {
    "Name": "shop", "Driver": "bridge", "Internal": False, "Labels": {"a": "b"}, "EnableIPv6": False,
    "Options": {"com.docker.network.driver.mtu": "1400"},
    "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.0.0.0/24", "Gateway": "10.0.0.1"}]},
}  # fmt: skip
VOLUME = {"Name": "v", "Driver": "local", "DriverOpts": {"type": "tmpfs"}, "Labels": {"a": "b"}}
WEB = ContainerSpec(
    name="web",
    image="box",
    command=("a",),
    mounts=(Mount(kind="volume", target="/v", source="v"),),
    health=HealthCheck(test=("CMD", "x"), interval=5.0),
    resources=Resources(memory=1 << 30, cpus=0.5),
)
HOST = HostSpec(
    items=(
        Item(id="1", name="shop", stack=StackSpec(name="shop", containers=(WEB,))),
        Item(id="2", name="motd", task=TaskSpec(module="copy", args={"dest": "/etc/motd"})),
    )
)
REQUESTS = {
    "/containers/create": FULL,
    "/containers/c/update": UPDATE,
    "/containers/c/exec": EXEC,
    "/exec/e/start": {"Detach": True, "Tty": True, "ConsoleSize": [1, 2]},
    "/networks/create": NETWORK,
    "/volumes/create": VOLUME,
    "/hawse/v1/plan": {"host_spec": json.loads(codec.dumps(HOST))},
    "/hawse/v1/apply": {"host_spec": json.loads(codec.dumps(HOST)), "digest": "x"},
    "/hawse/v1/blobs/missing": {"digests": ["sha256:" + "0" * 64]},
    "/hawse/v1/images/commit": {"manifest": "sha256:" + "0" * 64, "references": ["a:b"]},
}

TEXTS = (
    *(
        "",
        "x",
        "²",
        "٣",
        "a\nb",
        "a\tb",
        "\0",
        "\ud800",
        "/",
        "/.",
        "//x",
        "../x",
        "-1",
        "0",
        "9" * 5000,
        "é",
        ":",
    ),
    *(
        "a:",
        ":a",
        "=",
        "a=b",
        "container:",
        "container:a",
        "host",
        "none",
        "auto",
        "size=²",
        "mode=99",
        "exec",
    ),
    *(
        "70000",
        "70000/tcp",
        "1-2",
        "1-99999999999",
        "80/sctp",
        "::1",
        "256.1.1.1",
        "1.1.1.1%lo",
        "{" * 2000,
        "[]",
    ),
)
SCALARS = st.one_of(
    st.sampled_from(TEXTS),
    st.text(max_size=8),
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, -5, 1, 2**31, 2**53, 2**63 - 1, -(2**63), 2**63, 10**30, 1.5, 1e300]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS.map(str), inner, max_size=2),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in children:
        yield from places(inner, (*path, key))


def changed(body: Any, path: tuple[Any, ...], value: Any, *, as_key: bool) -> Any:
    """With `value` at that place, or as the name of what is there."""
    if not path:
        return value
    body = copy.deepcopy(body)
    *above, last = path
    place = body
    for step in above:
        place = place[step]
    if as_key and isinstance(place, dict) and isinstance(value, str):
        place[value] = place.pop(last)
    else:
        place[last] = value
    return body


ALL = [(target, path) for target, body in REQUESTS.items() for path in places(body)]


@pytest.fixture(scope="module")
def router() -> Router:
    router, engine = Router(), MagicMock()
    engine.containers.create.side_effect = use
    engine.containers.record.return_value.spec = ContainerSpec(name="c", image="i")
    engine.containers.update.side_effect = updated
    engine.executions.create.side_effect = Accepted("exec")
    engine.executions.start.side_effect = engine.executions.check_startable.side_effect = Accepted("start")
    engine.networks.create.side_effect = accepted
    engine.volumes.create.side_effect = accepted
    engine.program.plan.side_effect = accepted
    engine.program.apply.side_effect = lambda spec, *more, **named: iter([accepted(spec)])
    engine.images.store.missing_blobs.side_effect = accepted
    engine.images.commit_manifest.side_effect = lambda *given: accepted(given)
    for noun in (containers, execs, networks, volumes, program, blobs):
        noun.routes(router, engine)
    return router


def updated(reference: str, *, resources: Any, restart: Any) -> None:
    if resources is not None:
        checks.check_resources(resources)
    raise Accepted(codec.dumps((resources, restart)))


def accepted(spec: Any) -> None:
    raise Accepted(codec.dumps(spec))


def use(spec: ContainerSpec) -> None:
    """What the engine and its clients make of a spec that was not refused."""
    checks.check(spec)
    resolve.signal_number(spec.stop_signal)
    hosts = resolve.hosts_file(spec, spec.hostname or "h", [], "10.0.0.1", None)
    assert len(hosts.splitlines()) == hosts.count("\n") == 6 + len(spec.extra_hosts)
    written = resolve.resolv_conf(spec, "", embedded=False, host_network=False)
    assert len(written.splitlines()) == written.count("\n")
    json.dumps(hostconfig.host_config(spec, spec.links), ensure_ascii=False).encode()
    configuration.exposed_ports(spec, None)
    assert codec.loads(ContainerSpec, codec.dumps(spec)) == spec
    raise Accepted(codec.dumps(spec))


def answer(router: Router, path: str, body: bytes) -> int:
    found = router.find("POST", path)
    request = Request(method="POST", path=path, params=found.params, body=Body(iter([body])))
    try:
        found.handler(request)
    except HostRefused as error:
        pytest.fail(f"{path}: {body!r}: {error}")
    except HawseError as error:
        return error.status
    return 200


def test_what_is_right_is_taken(router: Router) -> None:
    for path, body in REQUESTS.items():
        assert answer(router, path, json.dumps(body).encode()) in (200, 201), path


@pytest.mark.parametrize(
    "value", [None, True, 5, "x", [], {}, [True], [[]], {"a": True}, {"a": {}}], ids=json.dumps
)
def test_what_is_of_another_type_is_refused(router: Router, value: Any) -> None:
    for target, path in ALL:
        body = json.dumps(changed(REQUESTS[target], path, value, as_key=False)).encode()
        assert answer(router, target, body) in (200, 201, 400, 501), (target, path)


@settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
)
@given(st.sampled_from(ALL), VALUES, st.booleans())
def test_no_body_is_a_bug_of_ours(
    router: Router, place: tuple[str, tuple[Any, ...]], value: Any, as_key: bool
) -> None:
    target, path = place
    body = json.dumps(changed(REQUESTS[target], path, value, as_key=as_key)).encode()
    assert answer(router, target, body) in (200, 201, 400, 501)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode(errors="surrogatepass")))
def test_what_is_no_json_is_refused(data: bytes) -> None:
    for target in REQUESTS:
        try:
            Body(iter([data])).json()
        except HawseError as error:
            assert error.status == 400, target


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 500 + b"1" + b"}" * 500,
        b'{"a":' + b"9" * 10_000 + b"}",
        b'{"a": NaN}',
        b"1e999",
    ],
)
def test_what_json_allows_and_nobody_means(router: Router, body: bytes) -> None:
    for target in REQUESTS:
        assert answer(router, target, body) == 400
