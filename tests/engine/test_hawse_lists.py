"""Lists of `hawse` against those of docker's own command line: the same bytes for the same --format."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest
from tests.support.cli import hawse

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]


@pytest.fixture(scope="module")
def populated(daemon: AgentUnderTest) -> Iterator[AgentUnderTest]:
    """Containers, a network and volumes of every kind that lists tell apart. Tests only look at them."""
    docker = daemon.docker
    docker("network", "create", "--label", "net=1", "inner")
    docker("volume", "create", "--label", "kind=<data>", "data")
    ports = ("-p", "127.0.0.1:18083:80", "-p", "19000-19002:9000-9002", "--expose", "7")
    docker(
        *("run", "-d", "--name", "web", "--label", "a=<b>", "--label", "com.x.y-z=1", *ports),
        *("-v", "data:/d", "-v", "/srv:/srv", "--network", "inner", "--memory", "64m", "-e", "A=é"),
        *(BUSYBOX, "sh", "-c", "echo hi > /x; sleep 1000 && echo 'a\"b'"),
    )
    docker("create", "--name", "made", "-v", "/anonymous", BUSYBOX, "true")
    docker("run", "--name", "ended", BUSYBOX, "sh", "-c", "exit 3", code=3)
    yield daemon
    daemon.clear()


def same(agent: AgentUnderTest, *words: str, docker: tuple[str, ...] = ()) -> None:
    """What it says equals what docker says; ages go on while we ask, so until docker says the same twice."""
    for _ in range(60):
        before = agent.docker(*(docker or words), code=None)
        ours = hawse(agent.socket, *words, code=None)
        after = agent.docker(*(docker or words), code=None)
        if before.stdout == after.stdout:
            assert (ours.stdout, bool(ours.code)) == (after.stdout, bool(after.returncode)), after.stderr
            return
    pytest.fail(f"docker {' '.join(docker or words)} never said the same twice")


FORMATS = [
    "json",
    "table",
    "{{json .}}",
    'table {{.ID}}\\t{{.Names}}\\t{{.Label "com.x.y-z"}}',
    "{{.Ports}}|{{.Size}}|{{.Mounts}}|{{.LocalVolumes}}|{{.Networks}}|{{.Labels}}|{{.Platform}}",
    "table {{upper .Names}} {{.CreatedAt}}",
    '{{.Label "a" | upper}}{{range split .Names ","}}{{printf "%-10s|" .}}{{end}}',
    "{{.Nope}}",
    "{{if",
]


@pytest.mark.parametrize("form", FORMATS)
def test_ps_formats(populated: AgentUnderTest, form: str) -> None:
    same(populated, "ps", "-a", "--format", form)
    same(populated, "ps", "-a", "--no-trunc", "--format", form)


@pytest.mark.parametrize(
    "options",
    [
        "",
        "-a",
        "-q",
        "-aq",
        "-n 1",
        "-l",
        "-s",
        "-as",
        "-a --no-trunc",
        "-aq --no-trunc",
        "-aq --format json",
    ],
)
def test_ps_options(populated: AgentUnderTest, options: str) -> None:
    same(populated, "ps", *options.split())


def test_json_is_the_api_s(populated: AgentUnderTest) -> None:
    (listed,) = json.loads(hawse(populated.socket, "--json", "ps", "-a").stdout).values()
    assert [entry["Names"] for entry in listed] == [["/ended"], ["/made"], ["/web"]]


def test_a_terminal_s_width(populated: AgentUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = hawse(populated.socket, "ps", "-a", terminal=True).stdout
    assert max(map(len, shown.splitlines())) <= 80 and "…" in shown
    whole = hawse(populated.socket, "ps", "-a", "--no-trunc", terminal=True).stdout
    assert max(map(len, whole.splitlines())) > 150
