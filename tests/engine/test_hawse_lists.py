"""Lists of `hawse` against those of docker's own command line: the same bytes for the same --format."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest
from tests.support.cli import hawse, same

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


FORMATS = [
    "json",
    "table",
    "{{json .}}",
    'table {{.ID}}\\t{{.Names}}\\t{{.Label "com.x.y-z"}}',
    "{{.Ports}}|{{.Size}}|{{.Mounts}}|{{.LocalVolumes}}|{{.Networks}}|{{.Labels}}|{{.Platform}}",
    "table {{upper .Names}} {{.CreatedAt}}",
    '{{.Label "a" | upper}}{{range split .Names ","}}{{printf "%-10s|" .}}{{end}}',
    "raw",
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


TEMPLATES = r"""
{{printf "%5d|%-5s|%05d|%q|%v|%.2f|%x|%t|%%" 1 "a" 2 "b" nil 1.5 255 true}} {{printf "%d %s" "a"}}
{{printf "%s %d" "x" 1 2}} {{print 1 2 "x" 3}} {{println "a" 1}} {{print nil}} {{print true false}}
{{printf "%T %T %T %c %U %b %o %X %e %g %+d %x" "s" 1 1.5 97 97 5 8 255 1.5 1.5 5 "hi"}}
{{printf "%s" (split "a b" " ")}} {{printf "%q" (split "a b" " ")}} {{len (split "" ",")}}
{{html "<a href='x'>\"&"}} {{js "it's \"<x>\" ="}} {{urlquery "a b&c/d"}} {{json "<é>\n\t"}} {{json 1.50}}
{{1.50}} {{0x10}} {{'a'}} {{1e3}} {{`raw\n`}} {{1e21}} {{1e-7}} {{100000000.0}} {{0.1}} {{"tab\té"}}
{{len "é"}} {{slice "abcdef" 2 4}} {{index "abc" 1}} {{title "some words-here it's"}} {{pad "x" 1 2}}
{{truncate "abcdef" 3}} {{join (split "a:b:c" ":") ","}} {{eq 1 2 1}} {{lt "a" "b"}} {{ge 1 2}} {{ne "a" "b"}}
{{and 1 0 2}} {{or 0 "" "x"}} {{not 0}} {{if eq .Names "web"}}yes{{else if true}}x{{end}}
{{with .Labels}}l{{else}}none{{end}}
{{range $i, $c := split "a b c" " "}}{{$i}}{{$c}}{{if $i}}{{break}}{{end}},{{end}}
{{with $x := "v"}}{{$x}}{{.}}{{end}} {{$x := 1}}{{$x}}{{$x = "b"}}{{$x}} {{"a" | printf "%s-%s" "b" | upper}}
{{- "x" -}}   y   {{- /* c */ -}} z {{printf "%-10s|%10s|" .Names .State}} {{.Label "a" | len}} {{$.Image}}
{{range 2}}{{.}}{{end}} {{index (split "a,b" ",") 1}} {{range split "a b" " "}}[{{.}}]{{else}}e{{end}}
"""


def test_templates(populated: AgentUnderTest) -> None:
    same(populated, "ps", "-a", "--format", TEMPLATES)
    for wrong in (
        "{{eq 1 1.0}}",
        "{{upper 3}}",
        "{{nil}}",
        "{{1 2}}",
        '{{"x" | "y"}}',
        "{{$x}}",
        "{{index .Names}}",
    ):
        same(populated, "ps", "-a", "--format", wrong)


INSPECTED = [
    "json",
    "{{.Id}} {{.State}}",
    "{{.ID}} {{.Name}} {{.State.Status}} {{.Created}} {{.RestartCount}}",
    "{{json .State}} {{.Id}}",
    "{{.Config.Env}} {{json .Config.Env}} {{.Config.Labels}} {{.Config.Labels.zz}}",
    '{{index .Config.Labels "a"}}{{index .Config.Labels "zz"}}',
    '{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}',
    "{{.NetworkSettings.Ports}} {{.HostConfig.PortBindings}} {{.HostConfig.LogConfig}} {{.SizeRw}}",
    "{{range .Mounts}}{{.Type}} {{.Source}}:{{.Destination}}{{println}}{{end}}{{json .Mounts}}",
    "{{range $name, $it := .NetworkSettings.Networks}}{{$name}} {{$it.IPAddress}}{{end}}",
    "{{.HostConfig.Memory}} {{.HostConfig.NanoCPUs}} {{.HostConfig.PidsLimit}} {{.HostConfig.RestartPolicy}}",
    "{{.Config.ExposedPorts}} {{.Config.Volumes}} {{.ExecIDs}} {{.State.Health}}",
    "{{json .HostConfig}}",
    "{{json .NetworkSettings}}{{json .Config}}{{json .GraphDriver}}{{json .State}}{{json .Mounts}}",
    "{{.HostConfig.Tmpfs}}{{.HostConfig.Sysctls}}{{.HostConfig.Init}}{{.HostConfig.Mounts}}",
    "{{.State.Health.Status}}",
    "{{.Nope}}",
]


@pytest.mark.parametrize("form", INSPECTED)
def test_inspect_formats(populated: AgentUnderTest, form: str) -> None:
    same(populated, "inspect", "-f", form, "web")


@pytest.mark.parametrize(
    "words",
    [
        *("web made data inner bridge busybox:test nope", "nope", "-s made", "--type volume web"),
        *(
            "--type image busybox:test",
            "-f {{.Mountpoint}}{{.Labels}}{{.Options}} data",
            "--type network data",
        ),
        *("-f {{range.Containers}}{{.Name}}{{.IPv4Address}}{{end}}{{.Labels}}{{.Internal}} inner",),
        *("-f {{.RepoTags}}{{.Size}}{{.Os}}{{.Config.Cmd}}{{.RootFS.Layers}} busybox:test",),
    ],
)
def test_inspect(populated: AgentUnderTest, words: str) -> None:
    same(populated, "inspect", *words.split())


def test_inspect_whole(populated: AgentUnderTest) -> None:
    for name in ("data", "inner"):
        same(populated, "inspect", "-f", "{{json .}}", name)


PS_FILTERS = [
    ("status=exited", "ended"), ("status=created status=running", "made web"), ("exited=3", "ended"),
    ("exited=0", ""), ("name=^/we", "web"), ("name=e", "ended made web"), ("label=a", "web"),
    ("label=a=<b>", "web"), ("label=a=c", ""), ("label=a label=nope", ""), ("volume=data", "web"),
    ("volume=/d", "web"), ("volume=/srv", "web"), ("publish=80", "web"), ("publish=9000-9001/tcp", "web"),
    ("publish=19000", ""), ("expose=7", "web"), ("expose=7/udp", ""), ("ancestor=busybox", ""),
    ("ancestor=busybox:test", "ended made web"), ("before=ended", "made web"),
    ("since=web", "ended made"),
    ("network=bridge", "ended made"), ("network=inner", "web"), ("health=none", "ended made web"),
    ("is-task=true", ""), ("is-task=false status=running", "web"),
]  # fmt: skip


def test_ps_filters(populated: AgentUnderTest) -> None:
    for filters, names in PS_FILTERS:
        words = [word for text in filters.split() for word in ("--filter", text)]
        shown = hawse(populated.socket, "ps", "-a", "--format", "{{.Names}}", *words).stdout
        assert (filters, " ".join(sorted(shown.split()))) == (filters, names)


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        ("nope=1", "invalid filter 'nope'"),
        ("status=asleep", "Unrecognised filter value for status: asleep"),
        ("health=fine", "Unrecognised filter value for health: fine"),
        ("exited=x", "invalid filter 'exited=x'"),
        ("publish=:80", "invalid filter 'publish=:80'"),
        ("before=nope", "No such container: nope"),
        ("name=(", "is not a regular expression"),
    ],
)
def test_a_filter_that_there_is_not(populated: AgentUnderTest, filter: str, message: str) -> None:
    assert message in hawse(populated.socket, "ps", "-f", filter, code=None).stderr


OTHER_FILTERS = [
    *(("image", f"reference={pattern}", "busybox:test") for pattern in ("busybox", "busybox:t*", "*")),
    ("image", "reference=*/busybox", ""), ("image", "until=0s", "busybox:test"),
    ("image", "until=10h", ""),
    ("image", "dangling=true", ""), ("image", "label=x", ""), ("network", "type=custom", "inner"),
    ("network", "name=inn", "inner"), ("network", "label=net=1", "inner"),
    ("network", "driver=null", "none"),
    ("network", "dangling=true", ""), ("volume", "name=dat", "data"), ("volume", "label=kind", "data"),
]  # fmt: skip


def test_filters_of_other_lists(populated: AgentUnderTest) -> None:
    for noun, filter, names in OTHER_FILTERS:
        form = "{{.Repository}}:{{.Tag}}" if noun == "image" else "{{.Name}}"
        shown = populated.docker(noun, "ls", "--format", form, "--filter", filter).stdout
        assert (filter, " ".join(sorted(shown.split()))) == (filter, names)


@pytest.mark.parametrize(
    "words",
    [
        *(
            "df",
            "df -v",
            "df --format json",
            "df -v --format json",
            "df --format {{.Type}}{{.Reclaimable}}",
            "df --format raw",
        ),
        *(
            "df -v --format {{range.Images}}{{.UniqueSize}}{{end}}",
            "info -f {{.NCPU}}{{.Driver}}{{.Plugins.Volume}}",
        ),
    ],
)
def test_of_the_host_as_a_whole(populated: AgentUnderTest, words: str) -> None:
    same(populated, *words.split(), docker=("system", *words.split()))


@pytest.mark.parametrize(
    "words",
    [
        *("", "--format json", "--format {{.Type}}{{.Action}}{{.Actor.Attributes.name}}{{.From}}"),
        *("--filter type=container --format {{.Action}}", "--filter event=start --filter container=web"),
        *("--filter nope=1", "--format {{.Nope}}"),
    ],
)
def test_events(populated: AgentUnderTest, words: str) -> None:
    """Those that there were until now, so that it ends."""
    same(populated, "events", "--since", "1", "--until", "0s", *words.split())


def test_stats(populated: AgentUnderTest) -> None:
    form = "{{.Container}} {{.Name}} {{.ID}} {{.PIDs}}"
    for words in (["-a"], ["web", "made"], ["web", "nope"]):
        theirs = populated.docker("stats", "--no-stream", "--format", form, *words, code=None)
        ours = hawse(populated.socket, "stats", "--no-stream", "--format", form, *words, code=None)
        assert ours.code == theirs.returncode
        assert ours.stdout == theirs.stdout or "No such container: nope" in ours.stderr
    (sample,) = json.loads(hawse(populated.socket, "--json", "stats", "web").stdout).values()
    assert sample[0]["pids_stats"]["current"] == 2  # sh and sleep


@pytest.mark.parametrize(
    "words",
    [
        *("images", "images -a --digests", "images -q --no-trunc", "images --format json", "images busybox"),
        *("images --format raw", "network ls --format raw", "volume ls --format raw"),
        *("images --format {{.Repository}}:{{.Tag}}|{{.UniqueSize}}|{{.VirtualSize}}|{{.CreatedAt}}",),
        *("images --format {{.Digest}}|{{.Containers}}|{{.SharedSize}}", "images nope"),
        *("network ls", "network ls -q", "network ls --no-trunc", "network ls --format json"),
        *("network ls -f type=custom --format {{.Name}}{{.IPv6}}{{.Internal}}{{.Labels}}{{.CreatedAt}}",),
        *("volume ls -q", "volume ls --format table", "volume ls --format json"),
        *("volume ls -f label=kind --format {{.Name}}{{.Mountpoint}}{{.Labels}}",),
    ],
)
def test_other_lists(populated: AgentUnderTest, words: str) -> None:
    same(populated, *words.split())


def test_json_is_the_api_s(populated: AgentUnderTest) -> None:
    (listed,) = json.loads(hawse(populated.socket, "--json", "ps", "-a").stdout).values()
    assert [entry["Names"] for entry in listed] == [["/ended"], ["/made"], ["/web"]]


def test_a_terminal_s_width(populated: AgentUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = hawse(populated.socket, "ps", "-a", terminal=True).stdout
    assert max(map(len, shown.splitlines())) <= 80 and "…" in shown
    whole = hawse(populated.socket, "ps", "-a", "--no-trunc", terminal=True).stdout
    assert max(map(len, whole.splitlines())) > 150
