"""What flags of `run` and `create` become; Docker's own client sends the same body for the same words."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.dockersocket import RecordingSocket

from hawse.docker.create import create_body
from hawse.docker.createflags import CREATE, RUN
from hawse.docker.execute import EXEC, exec_body
from hawse.docker.flags import Flag, read
from hawse_agent.errors import InputError, NotSupported

docker_cli = pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker CLI")

ACCEPTED = [
    "img",
    "img --foo -x -- y",
    "-- img -x",
    "-it img",
    "-i -a stderr img",
    "-a stdin -a STDOUT img",
    "--tty=false -i=true img",
    "--env-file env -e A=1 -e HOME -e NOT_SET_ANYWHERE -eB=2 --env=C= img",
    "-e A=2 --env-file env img",
    "--label-file labels -l a=b -l c --label=d=e=f img",
    "-u 1:2 --group-add 5 --group-add staff -w /w --entrypoint sh img -c x",
    '--entrypoint "" img',
    "--entrypoint a --entrypoint b img",
    "--init img",
    "--init=false --stop-signal INT --stop-timeout 0 img",
    "--ulimit nofile=1:2 --ulimit core=0 --ulimit nproc=-1 --oom-score-adj -5 img",
    "--name nm --rm --cidfile cid img",
    "--restart on-failure:3 img",
    "--restart always --rm=false img",
    "--log-driver local --log-opt max-size=1m --log-opt max-file=2 img",
    "-p 80 -p 8080:80 -p 127.0.0.1::81/udp -p [::1]:5:6 img",
    "-p80:80 --publish=81:81/tcp img",
    "-p 8000-8001:90-91 -p 8000-8010:82 -p 9000-9001 img",
    "-p target=80,published=8080,protocol=udp -p target=81 img",
    "-P --expose 7000-7001/udp --expose 7 img",
    "--network foo --ip 1.2.3.4 --network-alias a --net-alias b --mac-address 02:00:00:00:00:01 img",
    "--network foo --link b:c --link d img",
    "--link b:c img",
    "--net host img",
    "--network container:x img",
    "--network bridge --ip 1.2.3.4 img",
    "--mac-address 02:00:00:00:00:01 img",
    "--network name=foo,alias=a,alias=b,ip=1.2.3.4,mac-address=02:00:00:00:00:02 --network bar img",
    "--dns 1.1.1.1 --dns ::1 --dns-search x --dns-opt y --dns-option z img",
    "--add-host a:1.2.3.4 --add-host b=::1 --add-host c:host-gateway --add-host d:[::2] img",
    "--hostname h --domainname d img",
    "-h h img",
    "-v /a -v b:/c:ro -v ./x:/y -v ../z:/z:rw,rslave -v /p:/q img",
    "--tmpfs /run:size=1m,mode=700 --tmpfs /t --volumes-from q:ro --read-only --shm-size 1.5g img",
    "--mount type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave img",
    "--mount type=volume,source=v,target=/v,volume-nocopy,volume-label=a=b,volume-subpath=x img",
    "--mount type=volume,source=v,target=/v,volume-driver=local,volume-opt=x=y,ro=false img",
    "--mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770 --mount target=/q,consistency=cached img",
    "--mount type=bind,src=./x,destination=/b,bind-recursive=disabled img",
    "--mount '\"src=/a,b\",type=bind,dst=/b' img",
    "-m 64m --memory-swap -1 --memory-reservation 32m --cpus 1.5 -c 10 img",
    "-m 1g --memory-swap=2GiB --cpus=.25 img",
    "--cpuset-cpus 0-1 --cpuset-mems 0 --pids-limit -1 --cpu-quota 1000 --cpu-period 2000 img",
    "--device-read-bps /dev/sda:1mb --device-read-iops /dev/sda:10 img",
    "--device-write-bps /dev/sda:1k --device-write-iops /dev/sda:10 --device-write-iops /dev/sdb:1 img",
    "--device /dev/null --device /dev/zero:/dev/x:r --device /dev/null:rw --device /dev/a:/dev/b img",
    "--cap-add NET_ADMIN --cap-add cap_chown --cap-drop all --privileged img",
    "--security-opt no-new-privileges --security-opt seccomp=unconfined img",
    "--security-opt seccomp=profile.json img",
    "--security-opt seccomp:unconfined --security-opt label=disable img",
    "--security-opt systempaths=unconfined img",
    "--sysctl net.ipv4.ip_forward=1 --sysctl kernel.msgmax=8192 img",
    "--pid host --ipc host --uts host --userns host --cgroupns host img",
    "--pid container:x --ipc container:y --cgroupns private img",
    "--health-cmd true --health-interval 1m30s --health-timeout 500ms --health-retries 2 img",
    "--health-start-period 2s --health-start-interval 1.5s img",
    "--no-healthcheck img",
    "--pull never --platform linux/amd64 --quiet img",
]

REFUSED = [
    ("", ""),
    ("--nosuch img", "unknown flag: --nosuch"),
    ("-itZ img", "unknown shorthand flag: 'Z' in -"),
    ("--name", "flag needs an argument: --name"),
    ("-m", "flag needs an argument: 'm' in -m"),
    ("--rm=maybe img", 'invalid argument "maybe" for "--rm" flag'),
    ("-m 5x img", 'invalid argument "5x" for "-m, --memory" flag'),
    ("--cpus abc img", "failed to parse abc as a rational number"),
    ("--cpus 0.0000000001 img", "value is too precise"),
    ("--ulimit foo=1 img", "invalid ulimit type: foo"),
    ("--ulimit core=2:1 img", "ulimit soft limit must be less than or equal to hard limit: 2 > 1"),
    ("--sysctl vm.swappiness=1 img", "sysctl 'vm.swappiness=1' is not allowed"),
    ("--dns foo img", "IP address is not correctly formatted: foo"),
    ("--add-host bad img", 'bad format for add-host: "bad"'),
    ("--add-host a:b img", 'invalid IP address in add-host: "b"'),
    ("-e =x img", "invalid environment variable: =x"),
    ("-l =x img", "empty name"),
    ("-a foo img", "valid streams are STDIN, STDOUT and STDERR"),
    ("--device nodev img", "nodev is not an absolute path"),
    ("--device-read-bps /dev/sda:x img", "invalid rate for device: /dev/sda:x"),
    ("--device-read-iops sda:1 img", "bad format for device path: sda:1"),
    ("--mac-address zz img", "zz is not a valid mac address"),
    ("--pid foo img", ""),
    ("--uts foo img", ""),
    ("--expose 1:2 img", "invalid port format for --expose: 1:2"),
    ("-p foo img", "invalid containerPort: foo"),
    ("-p 1:2:3:4 img", "invalid IP address: 1:2"),
    ("-p 1-2:3-5 img", "invalid ranges specified for container and host Ports"),
    ("-p 80/foo img", "invalid proto: foo"),
    ("--env-file nothing img", "open nothing: no such file or directory"),
    ("--security-opt seccomp=nothing img", "nothing"),
    ("--security-opt foo img", 'Invalid --security-opt: "foo"'),
    ("--link a:b:c img", "bad format for links: a:b:c"),
    ("--mount type=bind,src img", "must be a key=value pair"),
    ("--mount nosuch=1,dst=/x img", "unexpected key 'nosuch' in 'nosuch=1'"),
    ("--mount type=bind,src=/x img", "target is required"),
    ("--network bridge --network-alias x img", "only supported for user-defined networks"),
    ("--network foo --network foo img", 'network "foo" is specified multiple times'),
    ("--network foo --network bridge img", "cannot attach both user-defined and non-user-defined"),
    ("--network name=foo,ip=1.1.1.1 --ip 1.1.1.2 img", "conflicting options: cannot specify both --ip and"),
    ("--restart always --rm img", "cannot specify both --restart and --rm"),
    ("--restart on-failure:x img", "maximum retry count must be an integer"),
    ("--log-driver none --log-opt max-size=1m img", "invalid logging opts for driver none"),
    ("--no-healthcheck --health-retries 1 img", "--no-healthcheck conflicts with --health-* options"),
    ("--health-interval -1s img", "--health-interval cannot be negative"),
    ("--pull sometimes img", ""),
]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordingSocket]:
    with RecordingSocket(tmp_path_factory.mktemp("docker") / "d.sock") as recording:
        yield recording


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("env").write_text("# one\nFILE=1\n  A=0\nHOME\nNOT_SET_ANYWHERE\n\nX=a b=c\n")
    Path("labels").write_text("from=file\nbare\n")
    Path("profile.json").write_text('{\n "defaultAction" : "SCMP_ACT_ALLOW"\n}\n')


def docker(recording: RecordingSocket, words: list[str]) -> tuple[str, Any, str]:
    """Path and body that Docker's client sends, or what it refuses with."""
    recording.asked.clear()
    done = subprocess.run(
        ["docker", "-H", f"unix://{recording.path}", "create", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    Path("cid").unlink(missing_ok=True)
    if done.returncode:
        assert recording.asked == []
        return "", None, done.stderr
    path, body = recording.asked[-1]
    return path, body, ""


def bare(value: Any, key: str = "") -> Any:
    """Without what says nothing: Docker's client sends every field."""
    if isinstance(value, list):
        if key == "Env":  # Docker's client mixes them up, and keeps the last of a name
            return dict(entry.partition("=")[::2] if "=" in entry else (entry, None) for entry in value)
        kept_list = [bare(entry) for entry in value]
        return sorted(kept_list) if key == "Binds" else kept_list  # a map of Docker's client: in any order
    if not isinstance(value, dict):
        return value
    kept = {name: bare(inner, name) for name, inner in value.items()}
    if key in ("Labels", "Tmpfs", "Volumes", "ExposedPorts", "Sysctls", "Config", "Options"):
        return kept
    if key == "EndpointsConfig":
        return kept if len(kept) > 1 or any(kept.values()) else {}
    nothing: tuple[Any, ...] = (None, "", [], {}, False, 0, [0, 0])
    silent = {("MemorySwappiness", -1), ("Name", "no")}
    return {
        name: inner
        for name, inner in kept.items()
        if (name in ("MaskedPaths", "ReadonlyPaths", "StopTimeout", "Init") and inner is not None)
        or not (
            any(inner == empty and type(inner) is type(empty) for empty in nothing)
            or (isinstance(inner, int | str) and (name, inner) in silent)
        )
    }


@docker_cli
@pytest.mark.parametrize("words", ACCEPTED)
def test_same_body(recording: RecordingSocket, words: str) -> None:
    path, body, error = docker(recording, shlex.split(words))
    assert not error
    given = read(CREATE, shlex.split(words))
    own = json.loads(json.dumps(create_body(given)))
    assert bare(own) == bare(body)
    for name, key in (("name", "name"), ("platform", "platform")):
        assert (f"{key}=" in path) == (name in given.options)


@docker_cli
@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_refused_by_both(recording: RecordingSocket, words: str, message: str) -> None:
    """With Docker's words, where we give any."""
    _, _, error = docker(recording, shlex.split(words))
    assert error and message in error
    with pytest.raises(InputError) as caught:
        create_body(read(CREATE, shlex.split(words)))
    assert message in str(caught.value)


@docker_cli
@pytest.mark.parametrize(
    "words",
    [
        "-d web ls -l",
        "-dit -e A=1 -e HOME -u 1:2 -w /w web sh -c 'x y'",
        "-d --privileged --env-file env --detach-keys ctrl-x,x web ls",
        "-d -e A=2 --env-file env web ls",
    ],
)
def test_same_body_of_exec(recording: RecordingSocket, words: str) -> None:
    """Detached, since nobody is at the other end to speak to."""
    recording.asked.clear()
    command = ["docker", "-H", f"unix://{recording.path}", "exec", *shlex.split(words)]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    path, body = recording.asked[0]
    assert path.endswith("/containers/web/exec")
    assert bare(exec_body(read(EXEC, shlex.split(words)))) == bare(body)


def takes_value(flag: Flag) -> list[str]:
    return [f"--{flag.name}", "x"] if flag.metavar else [f"--{flag.name}"]


@docker_cli
def test_every_flag_of_docker_is_known() -> None:
    done = subprocess.run(["docker", "run", "--help"], capture_output=True, text=True, check=True)
    theirs = {
        word.strip(",")
        for line in done.stdout.splitlines()
        for word in line[:30].split()
        if word.startswith("-") and word.strip(",-")
    }
    ours = {spelling for flag in RUN for spelling in flag.spellings} | {"--help"}
    assert theirs - ours == set()


@pytest.mark.parametrize("flag", [flag for flag in RUN if flag.refused], ids=lambda flag: flag.name)
def test_what_we_do_not_have_is_refused_by_name(flag: Flag) -> None:
    with pytest.raises(NotSupported, match=f"--{flag.name} is not supported"):
        read(RUN, [*takes_value(flag), "img"])


def test_flags_among_operands() -> None:
    table = (Flag(name="a", short="a", help=""), Flag(name="b", short="b", metavar="X", help=""))
    given = read(table, ["one", "-ab", "1", "two", "--", "-a"], interspersed=True)
    assert (given.options, given.operands) == ({"a": True, "b": "1"}, ["one", "two", "-a"])
    assert read(table, ["one", "-a"]).operands == ["one", "-a"]
    assert read(table, ["-", "-a"]).operands == ["-", "-a"]
