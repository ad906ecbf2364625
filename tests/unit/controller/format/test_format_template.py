"""Go templates: what they say, and what they refuse. Expectations are what Go's text/template prints."""

from __future__ import annotations

from typing import Any

import pytest

from hawse.format.template import Template
from hawse.format.values import Row, inspected, text
from hawse_agent.errors import InputError, NotSupported

CONTAINER: dict[str, Any] = {
    "Id": "0123456789ab",
    "State": {"Pid": 3, "Running": True},
    "Config": {"Image": "web:1", "Labels": {"a": "b", "c.d": "e"}, "Env": ["A=1", "B=2"], "Cmd": None},
    "Mounts": [{"Type": "bind", "RW": True}, {"Type": "volume", "RW": False}],
    "HostConfig": {"PidsLimit": None, "LogConfig": {"Type": "local", "Config": {"max-size": "1m"}}},
    "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "::", "HostPort": "81"}], "9/udp": None}},
}


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("plain", "plain"),
        ("{{.Id}} {{.Config.Image}}", "0123456789ab web:1"),
        ("{{ $.State.Pid }}", "3"),
        ("{{.State}} {{.Mounts}}", "{3 true} [{bind true} {volume false}]"),
        ("{{.Config.Labels}} {{.Config.Env}} {{.Config.Cmd}}", "map[a:b c.d:e] [A=1 B=2] []"),
        ('{{index .Config.Labels "c.d"}}|{{index .Config.Labels "x"}}|{{.Config.Labels.x}}', "e||<no value>"),
        ("{{.HostConfig.PidsLimit}} {{.HostConfig.LogConfig}}", "<nil> {local map[max-size:1m]}"),
        ('{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}', "81"),
        ("{{range $port, $to := .NetworkSettings.Ports}}{{$port}}{{$to}} {{end}}",
         "80/tcp[{:: 81}] 9/udp[] "),
        ("{{range .Mounts}}{{.Type}}:{{.RW}} {{end}}", "bind:true volume:false "),
        ("{{range $i, $m := .Mounts}}{{if $i}}, {{end}}{{$m.Type}}{{end}}", "bind, volume"),
        ("{{range .Config.Cmd}}x{{else}}none{{end}}", "none"),
        ('{{range .Config.Env}}{{if eq . "B=2"}}{{break}}{{end}}{{.}}{{end}}', "A=1"),
        ('{{range .Config.Env}}{{if eq . "A=1"}}{{continue}}{{end}}{{.}}{{end}}', "B=2"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{with .State}}{{.Pid}}{{end}}{{with .Config.Cmd}}x{{else}}y{{end}}", "3y"),
        ("{{if .Config.Cmd}}a{{else if .State.Running}}b{{else}}c{{end}}", "b"),
        ("{{if and .State.Running (gt .State.Pid 2)}}yes{{end}}", "yes"),
        ("{{or .Config.Cmd .Id}} {{and .Id 0}} {{not .Id}}", "0123456789ab 0 false"),
        ('{{eq .Id "x" "0123456789ab"}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{ge 1 2}}',
         "true true true true false"),
        ("{{$x := 1}}{{range .Mounts}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ("a  {{- 1 -}}  b {{- /* said */ -}} c {{/* said */}} d", "a1bc  d"),
        ('{{join .Config.Env ","}} {{len .Config.Env}} {{len "é"}}', "A=1,B=2 2 2"),
        ('{{range split "a:b" ":"}}[{{.}}]{{end}}', "[a][b]"),
        ('{{upper "a"}}{{lower "B"}}{{title "some words"}}', "AbSome Words"),
        ('{{pad "x" 1 2}}|{{pad "" 1 2}}|{{truncate "abcdef" 3}}', " x  ||abc"),
        ('{{"a" | printf "%s-%s" "b" | upper}}', "B-A"),
        ('{{printf "%5d|%-5s|%05d|%q|%v|%.2f|%x|%t|%%" 1 "a" 2 "b" nil 1.5 255 true}}',
         '    1|a    |00002|"b"|<nil>|1.50|ff|true|%'),
        ('{{printf "%d %s" "a"}}', "%!d(string=a) %!s(MISSING)"),
        ('{{print 1 2 "x" 3}} {{println "a" 1}}', "1 2x3 a 1\n"),
        ("{{slice .Id 2 4}} {{index .Mounts 1}}", "23 {volume false}"),
        ("{{json .State}} {{json .Config.Cmd}} {{json .Config.Labels}}",
         '{"Pid":3,"Running":true} null {"a":"b","c.d":"e"}'),
        ('{{printf "%U %q" 97 .Config.Env}} {{js "<a=\\"b\\">"}} {{title "it\'s"}}',
         'U+0061 ["A=1" "B=2"] \\u003Ca\\u003D\\"b\\"\\u003E It\'S'),
        ('{{json "<é>"}} {{html "<a>"}} {{urlquery "a b"}}', '"<é>" &lt;a&gt; a+b'),
        ("{{1.50}} {{0x10}} {{'a'}} {{1e3}} {{true}} {{`raw\\n`}}", "1.5 16 97 1000 true raw\\n"),
        ('{{"tab\\t\\u00e9"}}', "tab\té"),
    ],
)  # fmt: skip
def test_says(source: str, shown: str) -> None:
    assert Template(source).execute(inspected(CONTAINER)) == shown


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{.Id", "unclosed action"),
        ("{{if .Id}}", "`end` is missing"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{break}}", "outside of range"),
        ("{{}}", "missing value"),
        ("{{(.Id}}", "unclosed left parenthesis"),
        ("{{.Id ~}}", "unexpected '~'"),
        ("{{nothing .Id}}", 'function "nothing" not defined'),
        ("{{$x}}", "undefined variable '$x'"),
        ("{{.Nope}}", 'no entry for key "Nope"'),
        ("{{.HostConfig.PidsLimit.X}}", "nil data"),
        ("{{.Id.X}}", "can't evaluate field X"),
        ("{{index .Mounts 2}}", "index out of range: 2"),
        ("{{upper 1}}", "not a string"),
        ("{{join .Id}}", "join cannot be called"),
        ('{{eq 1 "1"}}', "incompatible types"),
        ("{{range .Id}}{{end}}", "can't iterate"),
        ("{{.Id 1}}", "non-function .Id"),
        ("{{nil}}", "nil is not a command"),
    ],
)
def test_refuses(source: str, message: str) -> None:
    with pytest.raises(InputError, match="template: ") as refused:
        Template(source).execute(inspected(CONTAINER))
    assert message in refused.value.message


def test_one_template_is_all_there_is() -> None:
    with pytest.raises(NotSupported, match="define is not supported"):
        Template('{{define "x"}}{{end}}')


def test_rows_have_methods_and_only_their_fields() -> None:
    row = Row({"ID": "<1>", "Label": {"a": "b"}.get})
    assert Template('{{.Label "a"}} {{"a" | .Label | upper}}').execute(row) == "b B"
    assert Template("{{json .}}").execute(row) == '{"ID":"\\u003c1\\u003e"}'
    with pytest.raises(InputError, match="no field Nope") as refused:
        Template("{{.Nope}}").execute(row)
    assert refused.value.hint == "there are: ID, Label"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (1.5, "1.5"), (123456.0, "123456"), (1e6, "1e+06"), (-1.5e-7, "-1.5e-07"), (0.25, "0.25")],
)  # fmt: skip
def test_numbers(value: float, shown: str) -> None:
    assert text(value) == shown


def test_the_fields_that_a_template_asks_for() -> None:
    assert Template("{{if .A}}{{.B.C}}{{else}}{{len (.D)}}{{end}}").fields == {"A", "B", "C", "D"}
    assert Template("{{json .}}").fields == {"."}
